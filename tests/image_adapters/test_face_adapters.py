"""FaceID files: told by their contents, every tensor checked, read by the right node; their LoRA in the weights."""

import comfy.lora
import pytest
import torch
from support.face_adapters import face_file_shapes, on_meta
from support.golden_data import case
from support.identity import adapter_of_case
from support.image_adapters import LAYERS, shapes_of_file
from support.models import tiny_model
from support.references import picture

from pack.nodes.image_adapters.adapter_fit import check_fits
from pack.nodes.image_adapters.adapter_lora import with_lora
from pack.nodes.image_adapters.adapter_use import check_use
from pack.nodes.image_adapters.faceid_tokens import version_of
from pack.nodes.image_adapters.image_adapter import adapter_from

WEIGHTS = {"sd15": ["sd15_faceid", "sd15_plus", "sd15_portrait"], "sdxl": ["sdxl_faceid", "sdxl_plusv2"]}


def published(kind="sd15", **form):
    """{name: empty tensor} of a published FaceID file, by shapes."""
    return on_meta(face_file_shapes(kind, **form))


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
@pytest.mark.parametrize(("form", "variant"), [({}, "faceid"), ({"plus": True}, "faceid-plus")])
def test_published_files_by_keys_and_shapes(kind, form, variant):
    adapter = adapter_from(published(kind, **form), "x.bin")
    assert (adapter.variant, adapter.tokens, len(adapter.pairs)) == (variant, 4, len(LAYERS[kind]))
    assert len(adapter.lora) == 16 * len(LAYERS[kind])
    if form:
        assert (adapter.embed.tower, adapter.embed.output) == ("ViT-H", "penultimate_hidden_states")
    else:
        assert adapter.embed is None
    portrait = adapter_from(published(kind, tokens=16, lora=False), "x.bin")
    assert (portrait.variant, portrait.tokens, portrait.lora) == ("faceid", 16, {})


def test_a_resampler_of_faces_is_a_portrait():
    shapes = shapes_of_file("sdxl", "plus", 2048, 512, dim=1280, inner=1280)
    adapter = adapter_from(on_meta(shapes), "ip-adapter-faceid-portrait_sdxl_unnorm.bin")
    assert (adapter.variant, adapter.tokens, adapter.embed) == ("resampled-face", 16, None)
    check_use(adapter, "FaceID")


@pytest.mark.parametrize("name", [name for names in WEIGHTS.values() for name in names])
def test_every_tensor_is_checked(name):
    weights, _ = case(f"faceid/weights_{name}")
    groups = {}
    for key in weights:
        # one of each kind of tensor is enough
        groups.setdefault("".join(c for c in key if not c.isdigit()), key)
    for key in groups.values():
        with pytest.raises(ValueError, match="is missing|it has no|instead"):
            adapter_from({k: t for k, t in weights.items() if k != key}, "x.bin")
        with pytest.raises(ValueError, match="has the shape|not a multiple|not a matrix|reads|rows"):
            adapter_from({**weights, key: torch.zeros(*weights[key].shape, 2)}, "x.bin")
    with pytest.raises(ValueError, match="is unexpected"):
        adapter_from({**weights, "image_proj.more.weight": torch.zeros(2, 2)}, "x.bin")


def test_each_node_names_the_right_one():
    faces = adapter_of_case("faceid", "weights_sd15_plus")
    with pytest.raises(ValueError, match=r"weights_sd15_plus.safetensors is a FaceID plus file; use the node FaceID"):
        check_use(faces, "MIP-Adapter")
    pictures = adapter_of_case("mip_adapter", "weights_sd15_plus")
    with pytest.raises(
        ValueError, match="is an IP-Adapter or MIP-Adapter file; use the node MIP-Adapter.*FaceID needs"
    ):
        check_use(pictures, "FaceID")


@pytest.mark.parametrize(
    ("name", "version", "said"),
    [
        ("ip-adapter-faceid-plusv2_sd15.bin", 2, False),
        ("deep/IP-Adapter-FaceID-Plus_V2.bin", 2, False),
        ("ip-adapter-faceid-plus_sd15.bin", 1, False),
        ("mine.safetensors", 2, True),
    ],
)
def test_the_version_by_the_name(name, version, said, caplog):
    adapter = adapter_from(published(plus=True), name)
    assert version_of(adapter, "auto") == version and ("versions 1 and 2 look alike" in caplog.text) == said
    assert (version_of(adapter, "1"), version_of(adapter, "2")) == (1, 2)


def test_sdxl_has_the_second_version_only(caplog):
    assert version_of(adapter_from(published("sdxl", plus=True), "mine.bin"), "auto") == 2 and not caplog.text


# the LoRA


def lora_of(kind):
    return tiny_model(kind), adapter_of_case("faceid", f"weights_{kind}_faceid")


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_the_lora_reaches_every_attention(kind):
    model, adapter = lora_of(kind)
    patched = with_lora(model, adapter, 0.6)
    assert len(patched.patches) == 8 * len(adapter.pairs) and not model.patches
    # as W + s up down, at a self-attention and at a cross-attention, by the file's own numbers
    for pair, block in enumerate(check_fits(adapter, model.model.diffusion_model)):
        side, number, index = block
        where = "middle_block" if side == "middle" else f"{side}_blocks.{number}"
        for own, attention in ((2 * pair, "attn1"), (2 * pair + 1, "attn2")):
            key = f"diffusion_model.{where}.1.transformer_blocks.{index}.{attention}.to_k.weight"
            ((strength, patch, *_),) = patched.patches[key]
            up, down = patch.weights[:2]
            assert strength == 0.6 and torch.equal(up, adapter.lora[f"{own}.to_k_lora.up.weight"])
            assert torch.equal(down, adapter.lora[f"{own}.to_k_lora.down.weight"])


def test_a_lora_that_stands_already_is_left_out(caplog):
    model, adapter = lora_of("sd15")
    once = with_lora(model, adapter, 1.0)
    assert with_lora(once, adapter, 0.5) is once
    assert "already has the LoRA of this file" in caplog.text
    other = adapter_of_case("faceid", "weights_sd15_plus")
    twice = with_lora(once, other, 1.0)
    assert all(len(standing) == 2 for standing in twice.patches.values())


def test_the_separate_file_of_the_lora_is_seen(caplog):
    """As people load it: other names, half or full precision, another strength."""
    model, adapter = lora_of("sd15")
    from pack.nodes.image_adapters import adapter_lora

    named = adapter_lora._kohya_names(adapter.lora, model.model.diffusion_model)
    patches = comfy.lora.load_lora(
        {name: t.float() for name, t in named.items()}, comfy.lora.model_lora_keys_unet(model.model, {})
    )
    loaded = model.clone()
    loaded.add_patches(patches, 0.3)
    assert with_lora(loaded, adapter, 1.0) is loaded and "already has the LoRA" in caplog.text


def test_no_strength_and_no_lora_change_nothing():
    model, adapter = lora_of("sd15")
    assert with_lora(model, adapter, 0.0) is model
    assert with_lora(model, adapter_of_case("faceid", "weights_sd15_portrait"), 1.0) is model
    assert torch.equal(picture(model), picture(with_lora(model, adapter, 0.0)))
