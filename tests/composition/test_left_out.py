"""What another pack forces us to leave out is said on the node that samples, once per run, by the technique's name."""

import pytest
import torch
from comfy.patcher_extension import WrappersMP
from comfy_extras.nodes_model_downscale import PatchModelAddDownscale
from composition.foreign import both, by_node, by_setter
from support.compare import differ
from support.concepts import conducted, random_concepts
from support.image_prompts import with_pictures
from support.models import sample, tiny_model
from support.references import PixelVAE, half_mask, picture, prompt, references, with_references

from nodes import ConditioningSetAreaStrength
from pack.nodes.host.attach import attach
from pack.nodes.inversion.layout_picture import picture_of
from pack.nodes.text_contexts.context_router import ContextRouter

MRSA, MIP, CONDUCTOR = "Multi-Reference Self-Attention", "MIP-Adapter", "Concept Conductor"


@pytest.fixture(scope="module")
def model():
    return tiny_model("sd15")


def halves(apply, args):
    """A tiler: the UNet sees the left and the right half by turns."""
    return torch.cat([apply(part, args["timestep"], **args["c"]) for part in args["input"].chunk(2, -1)], -1)


TILED = by_setter("set_model_unet_function_wrapper", halves)
WIDE = {"latent": (1, 4, 8, 16)}


def twice(n, context, value, options):
    return torch.cat([n, n]), torch.cat([context, context]), torch.cat([value, value])


def doubled(kind):
    """Every attention of a kind runs with twice its rows, of which nobody says whose they are."""
    output = by_setter(f"set_model_{kind}_output_patch", lambda n, options: sum(n.chunk(2)) / 2)
    return both(by_setter(f"set_model_{kind}_patch", twice), output)


SHRINK = by_node(PatchModelAddDownscale, 3, 2.0, 0.0, 1.0, True, "bicubic", "bicubic")


def with_regions(model):
    return with_references(model, references(2, region=[half_mask(64, 128), 1 - half_mask(64, 128)]))


def with_regions_of_pictures(model):
    return with_pictures(model, regions=[half_mask(64, 128), 1 - half_mask(64, 128)])


def beside(model):
    return conducted(model, random_concepts(model, size=(64, 128)))


LEFT_OUT = {
    "concepts on tiles": (beside, TILED, WIDE, CONDUCTOR),
    "concepts on shrunk layers": (conducted, SHRINK, {}, CONDUCTOR),
    "references beside unknown rows": (with_references, doubled("attn1"), {}, MRSA),
    "pictures beside unknown rows": (with_pictures, doubled("attn2"), {}, MIP),
    "regions on tiles": (with_regions, TILED, WIDE, MRSA),
    "regions of pictures on tiles": (with_regions_of_pictures, TILED, WIDE, MIP),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_left_out_is_said_once_by_name(model, said, name):
    ours, theirs, size, who = LEFT_OUT[name]
    for patched in (ours(theirs(model)), theirs(ours(model))):
        for _ in range(2):
            said.clear()
            picture(patched, **size)
            assert len(said) == 1 and said[0].startswith(f"{who}: "), said
            assert "another node" in said[0] and "bypass" in said[0]
    said.clear()
    picture(ours(model), **size)
    assert not said


def fewer_rows(executor, x, timesteps, context, y, control, options, **more):
    """A wrapper whose patch, before all others, gives the cross-attention fewer texts than there are rows."""
    patches = {**options.get("patches", {}), "attn2_patch": [lambda n, c, v, o: (n[:1], c[:1], v[:1])]}
    patches["attn2_patch"] += options.get("patches", {}).get("attn2_patch", [])
    patches["attn2_output_patch"] = [lambda n, o: n.expand(x.shape[0], -1, -1)]
    return executor(x, timesteps, context, y, control, {**options, "patches": patches}, **more)


def test_layer_wise_prompts_that_are_left_out_are_said(model, said):
    layers = torch.cat([prompt(model, seed)[0][0] for seed in range(16)])
    text = [[layers[:1], {"personalization_layers": layers}]]
    taught = attach(model, ContextRouter(("ED-LoRA",)))
    sample(taught, text, prompt(model, 200))
    assert not said
    unet = model.model.diffusion_model
    # behind all wrappers, as a pack that changes the UNet's own forward
    inner = unet._forward
    unet._forward = lambda x, t, context, y=None, control=None, options=None, **more: fewer_rows(
        inner, x, t, context, y, control, options, **more
    )
    try:
        sample(taught, text, prompt(model, 200))
    finally:
        del unet._forward
    assert len(said) == 1 and said[0].startswith("another node removed rows"), said


# once the prompt goes without it, the negative does too


def coupled(executor, x, timesteps, context, y, control, options, **more):
    """A couple node that lists no rows, on the calls that hold the prompt's rows alone."""
    if options["cond_or_uncond"] == [0]:
        patches = {name: list(several) for name, several in options.get("patches", {}).items()}
        patches.setdefault("attn2_patch", []).append(twice)
        patches.setdefault("attn2_output_patch", []).append(lambda n, o: sum(n.chunk(2)) / 2)
        options = {**options, "patches": patches}
    return executor(x, timesteps, context, y, control, options, **more)


COUPLED = by_setter("add_wrapper_with_key", WrappersMP.DIFFUSION_MODEL, "couple", coupled)


def one_by_one(first):
    """The sides in calls of their own, as where memory is short: the positive first, or the negative."""

    def apart(executor, base, conds, x, sigma, options):
        outs = {}
        for side in (0, 1) if first == "positive" else (1, 0):
            alone = [conds[i] if i == side else None for i in range(2)]
            outs[side] = executor(base, alone, x, sigma, options)[side]
        return [outs[0], outs[1]]

    return by_setter("add_wrapper_with_key", WrappersMP.CALC_COND_BATCH, "apart", apart)


@pytest.mark.parametrize("first", ["positive", "negative"])
def test_left_out_of_the_prompt_is_left_out_of_the_negative(model, said, first):
    """Or the negative alone would see the empty picture, and push in a direction of its own."""
    apart = one_by_one(first)
    theirs = picture(COUPLED(apart(model)))
    for patched in (with_pictures(COUPLED(apart(model))), COUPLED(apart(with_pictures(model)))):
        said.clear()
        assert torch.equal(picture(patched), theirs)
        assert len(said) == 1 and said[0].startswith("MIP-Adapter: another node")
    # it is the couple node, and not the two calls
    assert differ(picture(with_pictures(apart(model))), picture(apart(model))) > 1e-2
    assert torch.equal(picture(with_pictures(apart(model))), picture(apart(with_pictures(model))))


def test_references_of_both_sides_too(model):
    """At style_fidelity 0 the negative's rows read the references as well."""

    def unknown(executor, x, timesteps, context, y, control, options, **more):
        if options["cond_or_uncond"] == [0]:
            patches = {**options.get("patches", {}), "attn1_patch": [twice]}
            patches["attn1_output_patch"] = [lambda n, o: sum(n.chunk(2)) / 2]
            options = {**options, "patches": patches}
        return executor(x, timesteps, context, y, control, options, **more)

    unknown = by_setter("add_wrapper_with_key", WrappersMP.DIFFUSION_MODEL, "unknown", unknown)
    model = unknown(one_by_one("positive")(model))
    assert torch.equal(picture(with_references(model, style_fidelity=0.0)), picture(model))


# what a concept or a layout picture does not take of a prompt


def test_a_strength_inside_a_prompt_is_said(model, said):
    (weak,) = ConditioningSetAreaStrength().append(prompt(model, 300), 0.5)
    (plain,) = ConditioningSetAreaStrength().append(prompt(model, 300), 1.0)
    conducted(model, random_concepts(model, 1, positive=[plain], negative=[plain]))
    picture_of(torch.rand(1, 64, 64, 3), plain, PixelVAE())
    assert not said
    conducted(model, random_concepts(model, 1, positive=[weak], negative=[weak]))
    picture_of(torch.rand(1, 64, 64, 3), weak, PixelVAE())
    assert [sentence.partition(" has a strength;")[0] for sentence in said] == [
        "the prompt of concept 1",
        "the negative prompt of concept 1",
        "layout_positive",
    ]


# masks of another aspect than the picture


SQUARE, TALL = half_mask(64, 64), half_mask(128, 64)
STRETCHED = {
    MRSA: lambda model, mask: with_references(model, references(1, region=[mask])),
    MIP: lambda model, mask: with_pictures(model, words=["a cat"], regions=[mask]),
    CONDUCTOR: lambda model, mask: conducted(model, random_concepts(model, 1, mask=[mask])),
}


@pytest.mark.parametrize("who", STRETCHED)
def test_masks_of_another_aspect_than_the_picture_are_said(model, said, who):
    """As where a node samples tile by tile: each tile is taken for the whole picture."""
    make = STRETCHED[who]
    picture(make(model, SQUARE), steps=1, latent=(1, 4, 8, 8))
    # 72 pixels against 64
    picture(make(model, half_mask(64, 70)), steps=1, latent=(1, 4, 8, 8))
    assert not said
    for mask, size in ((TALL, (1, 4, 8, 8)), (SQUARE, (1, 4, 8, 9)), (SQUARE, (1, 4, 9, 8))):
        said.clear()
        picture(make(model, mask), steps=2, latent=size)
        assert len(said) == 1 and said[0].startswith(f"{who}: a "), said
        assert "is stretched over this picture of" in said[0] and "one tile of a larger picture" in said[0]


def test_masks_of_the_layout_picture_are_cropped_and_not_stretched(model, said):
    patched = conducted(model, random_concepts(model, 1, mask=[half_mask(64, 128)]), layout=True, size=(8, 16))
    picture(patched, steps=1, latent=(1, 4, 8, 8))
    assert not any("stretched" in sentence for sentence in said)
