"""A training that runs out of memory goes on with checkpoints and half the batch, or says what it takes."""

import comfy.model_management as mm
import pytest
import torch
from support.compare import relative
from support.trainings import trained, weights_of

from pack.nodes.files.safe_files import tensors_in
from pack.nodes.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("folders")


@pytest.fixture
def short(monkeypatch):
    """Says whether a step of the Trainer runs out of memory; fills a list with the pictures of each that does not."""
    taken, real, rule = [], Trainer.step, {"fails": lambda trainer: False}

    def step(trainer, batch):
        if rule["fails"](trainer):
            raise mm.OOM_EXCEPTION("as a device says it")
        taken.append(len(batch.latents))
        return real(trainer, batch)

    monkeypatch.setattr(Trainer, "step", step)

    def limited(fails):
        rule["fails"] = fails
        taken.clear()
        return taken

    return limited


def test_it_goes_on_with_checkpoints_as_it_would_have(host, folders, short, caplog):
    trained(host, "LoRA", file_name="whole", options={"checkpoint": "off"})
    weights = weights_of(host)
    short(lambda trainer: not trainer.checkpoint)
    made = trained(host, "LoRA", file_name="less")
    assert "4 steps" in made.report and weights_of(host) == weights
    assert caplog.text.count("out of memory: the training continues with checkpointing, half the batch size") == 1
    whole, less = (tensors_in(folders / "loras" / f"{name}.safetensors")[0] for name in ("whole", "less"))
    assert all(relative(less[key], whole[key]) < 1e-4 for key in whole)


def test_half_the_batch_twice_as_often(host, short):
    taken = short(lambda trainer: not trainer.checkpoint)
    trained(host, "LoRA", options={"batch_size": 4})
    assert taken == [2] * 8


def test_out_of_memory_again_is_said_with_what_it_takes(host, short):
    weights = weights_of(host)
    short(lambda trainer: True)
    with pytest.raises(
        ValueError, match=r"out of memory at step 0: it takes [\d.]+ GB .* lower size, batch_size or rank"
    ):
        trained(host, "LoRA")
    short(lambda trainer: False)
    assert weights_of(host) == weights
    assert "4 steps" in trained(host, "LoRA").report


@pytest.mark.parametrize(("free", "chosen"), [(0, True), (2**40, False)])
def test_auto_asks_what_is_free(host, short, monkeypatch, free, chosen):
    seen = []
    short(lambda trainer: seen.append(trainer.checkpoint))
    monkeypatch.setattr(mm, "get_free_memory", lambda *args, **more: (free, free) if more or len(args) > 1 else free)
    with torch.inference_mode():
        trained(host, "word", steps=1)
    assert seen == [chosen]
