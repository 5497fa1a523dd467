"""Modules that other packs put into the UNet for a run (motion modules), during that run and after it."""

import pytest
import torch
from comfy.model_patcher import PatcherInjection
from einops import rearrange
from support.clips import tiny_clip
from support.compare import differ
from support.concepts import conducted, dora, random_concepts, random_lora, strip, with_lora
from support.edloras import loras, put, random_contents  # noqa: F401 (fixture)
from support.models import execute, tiny_model
from support.references import PixelVAE, draw, picture, prompt, with_references
from support.resadapter_sets import folder, with_set  # noqa: F401 (fixture)
from support.thorough import few_of

from pack.nodes.concept_conductor.concepts_node import AddConcept
from pack.nodes.host.bare_unet import bare_unet
from pack.nodes.masks.layout_mask_node import LayoutMask
from pack.nodes.reference_attention import reference_pass
from pack.nodes.text_contexts.edlora_node import EDLoRALoader

FRAMES = 4
SET = "tiny_resadapter_v2_sd1.5"


@pytest.fixture
def model():
    return tiny_model("sd15")


class Frames(torch.nn.Module):
    """As a motion module: it takes the frames of each picture together, and mixes them."""

    def __init__(self, mixed=0.3):
        super().__init__()
        self.mixed = mixed

    def forward(self, x):
        frames = rearrange(x, "(b f) c h w -> b f c h w", f=FRAMES)
        return rearrange(frames + self.mixed * frames.roll(1, 1), "b f c h w -> (b f) c h w")


# Before the first upsampler, and before an attention: what follows in the block gets another number.
PLACES = ((2, 1), (3, 1))


def moving(model, places=()):
    """The MODEL with motion modules behind its first attention, and at places (number of the output block, index)."""

    def join(patcher):
        unet = patcher.model.diffusion_model
        unet.input_blocks[1].append(Frames())
        for number, index in places:
            unet.output_blocks[number].insert(index, Frames())

    def leave(patcher):
        unet = patcher.model.diffusion_model
        del unet.input_blocks[1][-1]
        for number, index in places:
            del unet.output_blocks[number][index]

    moved = model.clone()
    moved.set_injections("frames", [PatcherInjection(join, leave)])
    return moved


def film(model, frames=FRAMES, **kwargs):
    return picture(model, latent=(frames, 4, 8, 8), **kwargs)


@pytest.mark.parametrize("first", [True, False], ids=["ours first", "ours last"])
@pytest.mark.parametrize("inputs", few_of([{}, {"style_fidelity": 0.0}, {"cache_mb": 0}], {}), ids=str)
def test_references_in_a_film(model, first, inputs):
    ours = moving(with_references(model, **inputs)) if first else with_references(moving(model), **inputs)
    assert differ(film(ours), film(moving(model))) > 1e-2


def test_a_reference_is_a_still_film_of_itself(model, monkeypatch):
    """A module that leaves still films alone leaves the references alone: their keys are those of the picture."""
    monkeypatch.setattr(Frames, "forward", lambda self, x: (rearrange(x, "(b f) c h w -> b f c h w", f=FRAMES), x)[1])
    assert differ(film(moving(with_references(model))), film(with_references(model))) < 1e-5


def test_a_film_of_another_length_is_one_of_its_own(model, monkeypatch):
    """The bank tells the keys of a film of four frames from those of eight."""
    ours = with_references(moving(model))
    film(ours)
    monkeypatch.setattr(f"{__name__}.FRAMES", 8)
    eight = film(ours, 8)
    assert differ(eight, film(with_references(moving(tiny_model("sd15"))), 8)) < 1e-5


def test_a_film_with_little_memory(model, monkeypatch):
    ours = with_references(moving(model), cache_mb=0)
    wanted = film(ours)
    passes = []
    monkeypatch.setattr(reference_pass, "_rows_that_fit", lambda *args: passes.append(args) or 1)
    assert differ(film(ours), wanted) < 1e-4
    # two references, three steps
    assert len(passes) == 6


@pytest.mark.slow
@pytest.mark.parametrize("cache_mb", [0, 64])
def test_a_layout_picture_of_a_film(model, cache_mb, tmp_path, monkeypatch):
    monkeypatch.setattr("folder_paths.get_user_directory", lambda: str(tmp_path))
    inputs = {"cache_mb": cache_mb, "guidance_weight": 0.01}
    ours = conducted(moving(model), layout=True, **inputs)
    plain = conducted(moving(model), layout=True, **inputs | {"guidance_weight": 0.0})
    assert differ(film(ours), film(plain)) > 1e-4


# after the run, the modules still stand in the UNet


@pytest.fixture
def filmed(model):
    """The MODEL, of which a film has just been made: the modules behind the motion module have other numbers."""
    # the host keeps the MODEL of a graph's last run
    moved = moving(model, PLACES)
    film(moved)
    assert stands_in(model)
    yield model
    assert moved


def stands_in(model):
    return all(isinstance(model.model.diffusion_model.output_blocks[number][at], Frames) for number, at in PLACES)


def test_resadapter_after_a_film(filmed, folder):  # noqa: F811
    ours, wanted = (with_set(one, SET)[0] for one in (filmed, tiny_model("sd15")))
    assert set(ours.patches) == set(wanted.patches)
    # what was taken out to look at the UNet stands there again
    assert stands_in(filmed)
    assert differ(picture(ours), picture(wanted)) < 1e-5


def test_edlora_after_a_film(filmed, loras):  # noqa: F811
    fresh, clip = tiny_model("sd15"), tiny_clip("sd15", widths={"l": 32})
    name = put(loras / "dog.pth", random_contents(fresh, clip))
    ours, wanted = (execute(EDLoRALoader, model=one, clip=clip, edlora_file=name)[0] for one in (filmed, fresh))
    assert set(ours.patches) == set(wanted.patches) and stands_in(filmed)
    assert differ(picture(ours), picture(wanted)) < 1e-5


def test_concepts_after_a_film(filmed):
    """Made of LoRAs that were loaded before it."""
    fresh = tiny_model("sd15")
    wanted = picture(conducted(fresh, random_concepts(fresh)))
    with bare_unet(filmed.model):
        chain = random_concepts(filmed)
    assert differ(picture(conducted(filmed, chain)), wanted) < 1e-5


@pytest.mark.slow
def test_a_layout_mask_after_a_film(filmed):
    image = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(1))
    inputs = {"vae": PixelVAE(), "layout_image": image, "layout_positive": prompt(filmed, 1)}
    wanted = execute(LayoutMask, model=tiny_model("sd15"), **inputs)[0]
    for model in (filmed, moving(filmed, PLACES)):
        assert torch.equal(execute(LayoutMask, model=model, **inputs)[0], wanted)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [dict, dora], ids=["LoRA", "DoRA"])
def test_a_concept_on_layers_that_a_run_renames(model, monkeypatch, kind):
    """Behind modules that leave all as it is: an upsampler's convolution, and attentions."""
    monkeypatch.setattr(Frames, "forward", lambda self, x: x)
    state, weight = random_lora(model, 5), model.model.diffusion_model.state_dict()["output_blocks.2.1.conv.weight"]
    name = "lora_unet_output_blocks_2_1_conv"
    state[f"{name}.lora_up.weight"] = 0.1 * draw(len(weight), 2, 1, 1, seed=1)
    state[f"{name}.lora_down.weight"] = draw(2, *weight.shape[1:], seed=2)
    taught = with_lora(model, kind(state), 1.0)
    ours = conducted(model, execute(AddConcept, model=taught, positive=prompt(model, 300), mask=strip(0, 2))[0])
    wanted = film(ours, steps=2)
    assert differ(film(moving(ours, PLACES), steps=2), wanted) < 1e-3
    assert differ(film(model, steps=2), wanted) > 1e-2
    assert differ(film(ours, steps=2), wanted) < 1e-3
