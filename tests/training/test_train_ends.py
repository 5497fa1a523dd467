"""However a training ends, MODEL, CLIP and VAE are as they came, nothing stays hooked, the next graph is as before."""

from contextlib import nullcontext

import comfy.model_management as mm
import pytest
import torch
from support.compare import relative
from support.models import execute, tiny_model
from support.packed import packed_twins, scaled_fp8, sealed
from support.trainings import drawn, trained, weights_of

from pack.nodes.files.safe_files import tensors_in
from pack.nodes.files.training_state import TrainingState
from pack.nodes.host.content_keys import digest
from pack.nodes.pocket.pocket_node import PocketModel
from pack.nodes.training import train_loop, train_run
from pack.nodes.training.train_node import TrainConcept
from pack.nodes.training.train_optimizer import TrainOptimizer
from pack.nodes.training.trainer import Trainer
from pack.nodes.training.training_pictures_node import TrainingPicturesNode
from pack.nodes.training.unet_calls import TrainedUNet

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("folders")]


def ending_at(real, count, ending):
    """A function that ends a training at that call of it; before, the real one runs."""
    calls = []

    def standing(*args, **kwargs):
        calls.append(1)
        if len(calls) == count:
            ending()
        return real(*args, **kwargs)

    return standing


def fails():
    raise RuntimeError("broken in between")


_CANCELLED = mm.InterruptProcessingException
# {where it ends: (whose, which function, at which call, how, what comes of it)}
ENDS = {
    "an error in the UNet": (TrainedUNet, "predicted", 2, fails, RuntimeError),
    "an error on the way back": (TrainOptimizer, "backward", 2, fails, RuntimeError),
    "an error at its start": (Trainer, "_open", 1, fails, RuntimeError),
    "Cancel in a step": (Trainer, "step", 2, mm.interrupt_current_processing, _CANCELLED),
    "Cancel in a preview": (train_run, "preview_of", 1, mm.interrupt_current_processing, _CANCELLED),
    "Cancel while saving": (TrainingState, "_write", 2, mm.interrupt_current_processing, _CANCELLED),
    "an error while saving": (TrainingState, "_write", 2, fails, None),
    "an error in a preview": (train_loop, "as_shown", 1, fails, RuntimeError),
}


@pytest.mark.parametrize("where", ENDS)
def test_all_is_as_it_came(host, where, monkeypatch):
    owner, name, count, ending, error = ENDS[where]
    weights, picture = weights_of(host), drawn(host.model, host.clip, "33")
    with monkeypatch.context() as during:
        during.setattr(owner, name, ending_at(getattr(owner, name), count, ending))
        asked = {"preview_every": 2, "save_every": 1, "options": {"checkpoint": "on"}}
        with pytest.raises(error) if error else nullcontext():
            trained(host, "scene", **asked)
    assert not mm.processing_interrupted()
    assert weights_of(host) == weights
    assert torch.equal(drawn(host.model, host.clip, "33"), picture)
    # the same again, as if nothing had been
    made = trained(host, "scene", **asked)
    assert "4 steps" in made.report


def test_the_vae_of_a_checkpoint_is_as_it_came():
    with torch.inference_mode():
        model, clip, vae = execute(PocketModel)
        parts = (model.model, clip.cond_stage_model, vae.first_stage_model)
        before = [digest(*part.state_dict().values()) for part in parts]
        image = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0))
        (pictures,) = execute(TrainingPicturesNode, image=image)
        found = execute(
            TrainConcept, model=model, clip=clip, vae=vae, pictures=pictures, steps=1, size=64, preview_every=0,
            prior_weight=0.0,
        )  # fmt: skip
    mm.load_models_gpu([model, clip.patcher, vae.patcher], force_full_load=True)
    assert [digest(*part.state_dict().values()) for part in parts] == before
    assert found[3].shape == (1, 64, 64, 3)


def test_a_packed_base_model_trains_as_its_values_do(host, folders):
    files = []
    for name, model in zip(("packed", "plain"), packed_twins(tiny_model, scaled_fp8)):
        layers = [layer for layer in model.model.diffusion_model.modules() if isinstance(layer, torch.nn.Linear)]
        made = trained(host, "word", model=model, file_name=name, options={"lr_unet": 1e-2})
        assert "4 steps" in made.report
        assert not any("forward" in layer.__dict__ or layer._forward_hooks for layer in layers)
        files.append(tensors_in(folders / "loras" / f"{name}.safetensors")[0])
    found, expected = files
    for key in (key for key in expected if "lora_up" in key or "bundle" in key):
        assert relative(found[key], expected[key]) < 2e-2, key


def test_weights_that_nobody_can_read_are_refused(host):
    model, _ = packed_twins(tiny_model, sealed)
    with pytest.raises(ValueError, match="in a form that cannot be read.*load the checkpoint in another precision"):
        trained(host, "word", model=model)
