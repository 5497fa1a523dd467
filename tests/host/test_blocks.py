"""Attention blocks are read from the UNet, in order of execution."""

from types import SimpleNamespace

import comfy.model_patcher
import comfy.supported_models
import pytest
import torch
from support.models import tiny_model
from support.references import picture, with_references

from pack.nodes.host import blocks as host_blocks
from pack.nodes.host.blocks import attention_blocks, chosen_blocks, grid_at, middle_block


def fired(model, size):
    """(key, grid) of each self-attention that really runs, in order."""
    seen = []

    def look(n, context, value, options):
        seen.append(((*options["block"], options["block_index"]), tuple(options["activations_shape"][-2:])))
        return n, context, value

    model = model.clone()
    model.set_model_attn1_patch(look)
    picture(model, steps=1, cfg=1.0, latent=(1, 4, *size))
    return seen


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
@pytest.mark.parametrize("size", [(16, 16), (15, 13), (9, 57)])
def test_they_are_those_that_run(kind, size):
    model = tiny_model(kind)
    levels = attention_blocks(model.model.diffusion_model)
    assert [(block, grid_at(level, size)) for block, level in levels.items()] == fired(model, size)


@pytest.mark.parametrize(("count", "middle"), [(1, 0), (2, 0), (3, 1), (10, 4)])
def test_the_middle_of_an_even_number_is_the_lower_one(count, middle, monkeypatch):
    """The fifth of SDXL's ten, as published."""
    keys = [("output", 0, 0), *(("output", 1, index) for index in range(count)), ("output", 2, 0)]
    monkeypatch.setattr(host_blocks, "attention_blocks", lambda unet: dict.fromkeys(keys, 0))
    unet = SimpleNamespace(output_blocks=[None] * 9)
    assert middle_block(unet, {9: 1}) == ("output", 1, middle)
    assert middle_block(unet, {12: 1}) is None


def test_presets():
    unet = tiny_model("sd15").model.diffusion_model
    blocks = list(attention_blocks(unet))
    assert len(blocks) == 16
    assert chosen_blocks(unet, "published") == blocks[10:]
    assert chosen_blocks(unet, "fine") == blocks[13:]
    assert chosen_blocks(unet, "all up") == blocks[7:]
    assert chosen_blocks(unet, "all") == blocks
    unet = tiny_model("sdxl").model.diffusion_model
    blocks = list(attention_blocks(unet))
    assert len(blocks) == 28
    assert chosen_blocks(unet, "published") == [b for b in blocks if b[0] == "output" and 1 <= b[1] <= 5]
    assert chosen_blocks(unet, "fine") == blocks[22:]


@pytest.mark.parametrize(
    ("text", "indices"), [("10-15", range(10, 16)), ("4, 7 ,10 - 12", [4, 7, 10, 11, 12]), ("3;1 3", [1, 3])]
)
def test_custom_indices(text, indices):
    unet = tiny_model("sd15").model.diffusion_model
    assert chosen_blocks(unet, "custom", text) == [list(attention_blocks(unet))[i] for i in indices]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("10-16", "16 attention blocks, 0 to 15"),
        ("99", "16 attention blocks"),
        ("", "empty"),
        ("a-b", '"a-b"'),
        ("-3", '"-3"'),
        ("7-4", "smaller"),
    ],
)
def test_custom_indices_that_cannot_be(text, says):
    with pytest.raises(ValueError, match=says):
        chosen_blocks(tiny_model("sd15").model.diffusion_model, "custom", text)


def test_a_model_without_a_unet_is_named():
    config = comfy.supported_models.SD3(
        {"in_channels": 16, "depth": 1, "adm_in_channels": 8, "pos_embed_max_size": 8, "num_patches": 64}
    )
    config.set_inference_dtype(torch.float32, None)
    cpu = torch.device("cpu")
    model = comfy.model_patcher.ModelPatcher(config.get_model({}, "", device=cpu), cpu, cpu)
    with pytest.raises(ValueError, match="SDXL\\); this one is SD3"):
        with_references(model)


@pytest.mark.parametrize("text", ["9" * 4400, f"1-{'9' * 4400}"], ids=["a number", "a range"])
def test_an_index_of_thousands_of_digits(text):
    with pytest.raises(ValueError, match='custom_blocks has ".*"; enter attention indices') as error:
        chosen_blocks(tiny_model("sd15").model.diffusion_model, "custom", text)
    assert len(str(error.value)) < 300
