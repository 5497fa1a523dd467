"""Odd inputs of every technique: one sentence where they come in, and nothing is left out without a word."""

import pytest
import torch
from support.concepts import conducted, random_concepts, random_lora, strip, with_lora
from support.image_prompts import references_of, with_pictures
from support.models import execute, sample, tiny_model
from support.references import PixelVAE, prompt, references, with_references

from pack.nodes.concept_conductor.concept_masks_node import ConceptMaskPictures
from pack.nodes.concept_conductor.concepts_node import AddConcept
from pack.nodes.image_prompts.mip_adapter_node import MIPMaps
from pack.nodes.inversion.layout_picture import picture_of
from pack.nodes.masks.layout_mask_node import LayoutMask
from pack.nodes.references.references_node import AddReference, ReferencePreview


@pytest.fixture
def model():
    return tiny_model("sd15")


def picture(model, **kwargs):
    return sample(model, prompt(model, 100), prompt(model, 200), **kwargs)


# nothing in it


NOTHING = [
    {"image": torch.zeros(0, 64, 64, 3)},
    {"image": torch.zeros(1, 0, 64, 3)},
    {"image": torch.rand(1, 64, 64, 3), "mask": torch.ones(1, 0, 64)},
    {"image": torch.rand(1, 64, 64, 3), "mask": torch.ones(0, 64, 64)},
    {"image": torch.rand(1, 64, 64, 3), "region": torch.ones(1, 64, 0)},
]


@pytest.mark.parametrize("inputs", NOTHING, ids=["no picture", "no height", "mask", "no mask", "region"])
@pytest.mark.parametrize("node", ["preview", "MRSA", "MIP-Adapter"])
def test_empty_references(model, node, inputs):
    (chain,) = execute(AddReference, word="lion", **inputs)
    with pytest.raises(ValueError, match=r'reference 1 \("lion"\)'):
        if node == "preview":
            execute(ReferencePreview, references=chain)
        elif node == "MRSA":
            with_references(model, chain)
        else:
            with_pictures(model, references=chain)


def test_a_preview_of_no_references():
    for nothing in ((), None):
        with pytest.raises(ValueError, match="no references are connected; connect Add Reference"):
            execute(ReferencePreview, references=nothing)


def test_empty_layout_pictures(model):
    text = prompt(model, 1)
    for image in (torch.zeros(0, 64, 64, 3), torch.zeros(1, 64, 0, 3)):
        with pytest.raises(ValueError, match="layout_image has no picture"):
            execute(LayoutMask, model=model, vae=PixelVAE(), layout_image=image, layout_positive=text)
        with pytest.raises(ValueError, match="layout_image has no picture"):
            picture_of(image, text, PixelVAE())


@pytest.mark.parametrize("mask", [torch.tensor(1.0), torch.ones(3), torch.ones(2, 8, 8), torch.ones(1, 8, 8, 4)])
def test_masks_of_concepts_that_are_not_one(model, mask):
    with pytest.raises(ValueError, match=r'concept 1 .*"lion".*; connect a single MASK'):
        execute(AddConcept, model=model, positive=prompt(model, 1), word="lion", mask=mask)


def test_empty_masks_of_concepts(model):
    with pytest.raises(ValueError, match='concept 1 .*"lion"'):
        execute(AddConcept, model=model, positive=prompt(model, 1), word="lion", mask=torch.ones(1, 0, 64))


@pytest.mark.parametrize("samples", [{}, {"samples": torch.zeros(0, 4, 8, 8)}], ids=["none", "empty"])
def test_maps_of_no_samples(model, samples):
    with pytest.raises(ValueError, match="samples has no latents"):
        execute(MIPMaps, model=with_pictures(model), samples=samples)
    with pytest.raises(ValueError, match="samples has no latents"):
        execute(ConceptMaskPictures, model=conducted(model), samples=samples)


# prompts of another model


@pytest.mark.parametrize(
    ("kind", "tensor"), [("is 5 wide, the model reads 32", torch.zeros(1, 7, 5)), ("no text", torch.zeros(1, 0, 32))]
)
def test_prompts_of_another_model(model, kind, tensor):
    width = prompt(model, 1)[0][0].shape[-1]
    kind, tensor = kind.replace("32", str(width)), tensor if tensor.numel() else torch.zeros(1, 0, width)
    odd, good = [[tensor, {}]], prompt(model, 1)
    (first,) = execute(AddConcept, model=model, positive=odd, word="lion", mask=strip(0, 2))
    (second,) = execute(AddConcept, model=model, positive=good, negative=odd, word="cat", mask=strip(0, 2))
    with pytest.raises(ValueError, match=rf'the prompt of concept 1 \("lion"\) .*{kind}'):
        conducted(model, first)
    with pytest.raises(ValueError, match=rf'the negative prompt of concept 1 \("cat"\) .*{kind}'):
        conducted(model, second)
    layout = {"layout_image": torch.rand(1, 64, 64, 3), "layout_positive": odd, "vae": PixelVAE()}
    with pytest.raises(ValueError, match=f"layout_positive .*{kind}"):
        conducted(model, **layout)
    with pytest.raises(ValueError, match=f"layout_positive .*{kind}"):
        execute(LayoutMask, model=model, **layout)


# numbers that are none


def test_layout_guidance_on_a_picture_of_nan(model):
    def broken(function, inputs):
        return function(inputs["input"], inputs["timestep"], **inputs["c"]) * float("nan")

    patched = conducted(model, layout=True, guidance_end=1.0)
    patched.set_model_unet_function_wrapper(broken)
    with pytest.raises(ValueError, match="layout guidance met NaN or infinite values"):
        picture(patched, steps=3)


@pytest.mark.parametrize("whose", ["of the picture", "of the layout picture", "of a concept"])
def test_layout_guidance_on_a_prompt_of_nan(model, whose):
    bad = [[torch.full_like(prompt(model, 1)[0][0], float("nan")), {}]]
    good, inputs, chain = prompt(model, 100), {}, None
    if whose == "of the layout picture":
        inputs["layout_positive"] = bad
    if whose == "of a concept":
        (chain,) = execute(AddConcept, model=model, positive=bad, word="lion", mask=strip(0, 2))
    with pytest.raises(ValueError, match="NaN or infinite"):
        patched = conducted(model, chain, layout=True, guidance_end=1.0, **inputs)
        sample(patched, bad if whose == "of the picture" else good, prompt(model, 200), steps=3)


# LoRAs that ComfyUI itself skips


def without_axes(half):
    return lambda file: {key: t.flatten()[0].clone() for key, t in file.items() if half in key}


def of_rank_0(file):
    down, up = (next(t for key, t in file.items() if half in key) for half in ("lora_down", "lora_up"))
    module = next(iter(file)).partition(".")[0]
    return {
        f"{module}.lora_down.weight": down[:0],
        f"{module}.lora_up.weight": up[:, :0],
        f"{module}.alpha": torch.tensor(4.0),
    }


@pytest.mark.parametrize(
    "spoil", [without_axes("lora_down"), without_axes("lora_up"), of_rank_0], ids=["down", "up", "rank 0"]
)
def test_a_lora_that_the_host_skips_in_part_is_skipped_here_too(model, spoil):
    file = random_lora(model, 7)
    module = next(iter(file)).partition(".")[0]
    first = {key: t for key, t in file.items() if key.startswith(f"{module}.")}
    left = {key: t for key, t in file.items() if key not in first}
    odd = with_lora(model, {**file, **spoil(first)}, 1.0)
    text, mask = prompt(model, 300), strip(0, 1)

    def conducted_with(concept):
        (chain,) = execute(AddConcept, model=concept, positive=text, mask=mask)
        return picture(conducted(model, chain))

    assert torch.equal(conducted_with(odd), conducted_with(with_lora(model, left, 1.0)))


# LoRAs of another family


def test_a_lora_of_which_nothing_fits_is_said(model, said):
    other = tiny_model("sdxl")
    wrong = with_lora(model, random_lora(other, 7), 1.0)
    wrong = wrong if not wrong.patches else with_lora(model, {"lora_unet_none.lora_up.weight": torch.zeros(4, 2)}, 1.0)
    (chain,) = execute(AddConcept, model=wrong, positive=prompt(model, 1), word="lion", mask=strip(0, 2))
    conducted(model, chain)
    assert len(said) == 1 and said[0].startswith('concept 1 ("lion") has no LoRA: nothing of the file')


def test_a_concept_that_is_meant_to_be_a_prompt_alone_is_not_complained_of(model, said):
    style = with_lora(model, random_lora(model, 3), 1.0)
    for base in (model, style):
        for concept in (base, base.clone(), style):
            (chain,) = execute(AddConcept, model=concept, positive=prompt(model, 1), word="lion", mask=strip(0, 2))
            conducted(base, chain)
    assert not said


# what is left out says so


def test_what_is_not_connected_is_said(model, said):
    for node, what in (
        (lambda: with_references(model, ()), "references"),
        (lambda: with_pictures(model, references=()), "references"),
        (lambda: conducted(model, ()), "concepts"),
    ):
        assert node() is model
        assert said == [f"no {what} are connected, so this node does nothing"]
        said.clear()


def test_what_is_connected_is_not_complained_of(model, said):
    with_references(model, references(1))
    with_pictures(model, references=references_of(["a cat"]))
    conducted(model, random_concepts(model, 1))
    assert not said
