"""VisCtrl by property: what each input does, batches, sizes, half precision, other nodes, interrupts, refusals."""

import gc

import comfy.model_management as mm
import pytest
import torch
from support.compare import differ
from support.concepts import conducted, random_lora, with_lora
from support.controlnets import controlnet
from support.editing import LatentVAE, edited, painted, pictures
from support.image_prompts import with_pictures
from support.models import recording, tiny_model
from support.references import PixelVAE, picture, prompt, with_references
from support.thorough import few_of

from nodes import ControlNetApplyAdvanced
from pack.nodes.editing import visctrl_passes
from pack.nodes.host import messages
from pack.nodes.host.bank import bank_of

# What rounding of another batch becomes on a way there and back.
ROUNDING = 1e-4


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def calm():
    """A model that hardly moves a latent: neither rounding nor the length of steps grows on the way."""
    model = tiny_model()
    for weight in model.model.diffusion_model.out[2].parameters():
        weight.data *= 0.0005
    return model


@pytest.fixture
def said(monkeypatch):
    found = []
    monkeypatch.setattr(messages, "_show", found.append)
    return found


def test_the_reference_is_read_from_a_step_and_a_block_on(model):
    whole, other = edited(model), pictures(seed=2)
    assert differ(edited(model, reference=other), whole) > 1e-2
    assert differ(edited(model, start_block=8), whole) > 1e-3
    assert differ(edited(model, steps=3, start_step=1), edited(model, steps=3)) > 1e-3
    # the last evaluation is that of the step before the last: from there on nothing is read
    plain = edited(model, start_step=1)
    assert torch.equal(edited(model, reference=other, start_step=1), plain) and differ(plain, whole) > 1e-2


def test_without_a_reference_the_picture_comes_back(calm):
    """The way to noise and the way back undo each other, guidance included."""
    image = pictures()
    picture = LatentVAE().decode(PixelVAE().encode(image))
    away = differ(edited(calm, image, start_step=1), picture)
    assert away < 5e-3 and differ(edited(calm, image), picture) > 3 * away


def test_further_passes_edit_the_result(calm):
    first, again = edited(calm), edited(calm, iterations=2)

    class Known(LatentVAE):
        def encode(self, pixels):
            return super().encode(pixels) if pixels.min() >= 0 else first.movedim(-1, 1)

    assert differ(edited(calm, image=-torch.ones(1, 64, 64, 3), vae=Known()), again) < ROUNDING
    assert differ(first, again) > 3 * ROUNDING


def test_a_reference_is_inverted_once_for_all_passes_alike(model):
    patched, recorder = recording(model)
    edited(patched, iterations=3)
    # one evaluation there of the reference; there and back for each of 3 passes
    assert len(recorder.calls) == 1 + 3 * 2
    recorder.calls.clear()
    edited(patched, iterations=3, later_steps=3)
    assert len(recorder.calls) == 1 + 2 + 2 + 2 * 4


@pytest.mark.parametrize("of_each", [False, True], ids=["one reference", "one for each"])
def test_pictures_of_a_batch_are_as_alone(calm, of_each):
    count = 3
    images, theirs = pictures(count), pictures(count if of_each else 1, 72, 56, seed=1)
    together = edited(calm, images, theirs)
    for i in range(count):
        alone = edited(calm, images[i : i + 1], theirs[i % len(theirs)][None])
        assert differ(together[i], alone[0]) < ROUNDING


@pytest.mark.parametrize("kind", ["sd15", "sd2", "sdxl"])
def test_kinds_and_odd_sizes(kind):
    model = tiny_model(kind, seed=5 if kind == "sd2" else None)
    result = edited(model, pictures(1, 77, 93), pictures(1, 120, 50, seed=1))
    assert result.shape == (1, 9, 11, 4) and bool(torch.isfinite(result).all())
    assert differ(result, edited(model, pictures(1, 77, 93), pictures(1, 120, 50, seed=2))) > 1e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_errs_as_it_does_without_a_reference(model, dtype):
    half = tiny_model(dtype=dtype)
    plain, read = (differ(edited(half, start_step=step), edited(model, start_step=step)) for step in (1, 0))
    assert read < 3 * plain + 1e-3


@pytest.mark.parametrize("cfg", [0.5, 1.0])
def test_up_to_cfg_1_the_prompts_act_alone(model, cfg):
    patched, recorder = recording(model)
    found = edited(patched, cfg=cfg)
    assert all(call.uncond is None for call in recorder.calls)
    assert torch.equal(found, edited(model, cfg=1.0, negative=prompt(model, 300)))


def with_control(model, positive):
    hint = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(4))
    return ControlNetApplyAdvanced().apply_controlnet(positive, positive, controlnet(model), hint, 1.0, 0.0, 1.0)[0]


BESIDE = {
    "LoRA": lambda model: with_lora(model, random_lora(model, 3), 1.0),
    "MRSA": with_references,
    "MIP-Adapter": with_pictures,
    "Concept Conductor": conducted,
}


@pytest.mark.parametrize("what", BESIDE)
def test_other_nodes_on_the_model_act(model, what):
    patched = BESIDE[what](model)
    texts = {"positive": prompt(model, 100, 77), "reference_positive": prompt(model, 150, 77)}
    found = edited(patched, negative=prompt(model, 200, 77), **texts)
    bare = edited(model, negative=prompt(model, 200, 77), **texts)
    assert bool(torch.isfinite(found).all()) and differ(found, bare) > 1e-3


def test_a_controlnet_on_the_prompt_acts(model):
    assert differ(edited(model, positive=with_control(model, prompt(model, 100))), edited(model)) > 1e-3


@pytest.mark.slow
def test_it_leaves_the_model_and_nothing_behind(model):
    edited(model, pictures(1, 16, 16), start_block=15)
    gc.collect()

    def tensors():
        return sum(isinstance(one, torch.Tensor) for one in gc.get_objects())

    before = tensors()
    for _ in range(30):
        edited(model, pictures(1, 16, 16), start_block=15)
    gc.collect()
    assert tensors() <= before
    assert not any(module._forward_hooks for module in model.model.diffusion_model.modules())


@pytest.mark.parametrize("at", few_of([1, 2, 3, 4], 2))
def test_an_interrupt_behind_any_evaluation_ends_it(model, monkeypatch, at):
    """One evaluation there of the reference; there and back for each of two passes."""
    given = {"iterations": 2, "start_block": 14}
    whole, shown = edited(model, **given), []

    def show(step, *rest):
        shown.append(step)
        if len(shown) == at:
            mm.interrupt_current_processing()

    with monkeypatch.context() as during:
        during.setattr(visctrl_passes.latent_preview, "prepare_callback", lambda *args: show)
        with pytest.raises(mm.InterruptProcessingException):
            edited(model, **given)
    assert shown == list(range(at)) and torch.equal(edited(model, **given), whole)


def test_progress_goes_to_its_end(model, monkeypatch):
    shown = []
    monkeypatch.setattr(
        visctrl_passes.latent_preview,
        "prepare_callback",
        lambda model, total: lambda step, x0, x, steps: shown.append((step + 1, steps, total, tuple(x0.shape))),
    )
    edited(model, pictures(2), pictures(2, seed=1), iterations=2, later_start=1)
    # the second pass reads no reference, so that none is inverted for it
    total = 2 * (3 + 2)
    assert [step for step, *_ in shown] == list(range(1, total + 1))
    assert {(steps, whole) for _, steps, whole, _ in shown} == {(total, total)}
    assert shown[0][3] == (1, 4, 8, 8)


def test_refusals(model, said):
    for wrong, sentence in (
        ({"steps": 1}, "steps is 1; enter a number from 2 to 1000"),
        ({"start_step": 2}, "start_step is 2; enter a number below steps, which is 2"),
        ({"later_start": 2}, "later_start is 2; enter a number below later_steps, which is 2"),
        ({"start_block": 16}, "start_block is 16; this model has 16 self-attentions, 0 to 15"),
        ({"cfg": float("nan")}, "cfg is nan; enter a number"),
        ({"later_cfg": -1.0}, "later_cfg is -1.0; enter a number from 0.0 to 100.0"),
        ({"iterations": 0}, "iterations is 0; enter a number from 1 to 20"),
        ({"vae": None}, "vae is empty; connect the checkpoint's VAE"),
        ({"negative": []}, "negative is empty; connect a CLIP Text Encode"),
        ({"positive": prompt(tiny_model("sdxl"), 1)}, "positive is 48 wide, the model reads 32"),
        ({"image": torch.rand(0, 64, 64, 3)}, "image has no picture"),
        ({"image": torch.rand(1, 4, 64, 3)}, "image is 64x4 pixels; a picture needs at least 8x8"),
        ({"reference": torch.full((1, 64, 64, 3), float("inf"))}, "reference_image has NaN or infinite values"),
        ({"reference": pictures(2)}, "2 reference pictures came for 1 pictures; connect one, or one for each"),
    ):
        with pytest.raises(ValueError, match=sentence):
            edited(model, **wrong)
    with pytest.raises(ValueError, match="VisCtrl does not work on a MODEL with PILOT"):
        edited(painted(model)[0])
    edited(model, reference_positive=with_control(model, prompt(model, 150)))
    assert any("reference_positive has a ControlNet; while the picture looks at the reference" in one for one in said)


def test_what_is_kept_of_other_references_stays(model):
    """VisCtrl keeps nothing itself, and does not empty the bank of its checkpoint."""
    picture(with_references(model, cache_mb=64))
    bank = bank_of(model.model)
    before = bank.bytes
    assert before
    edited(model)
    assert bank.bytes == before
