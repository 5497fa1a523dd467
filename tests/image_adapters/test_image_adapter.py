"""Image adapter files: published layouts, all variants by keys and shapes, what fits which model, what is refused."""

import math

import comfy.ldm.modules.diffusionmodules.openaimodel as openaimodel
import comfy.ops
import pytest
import torch
from support import checkpoint
from support.image_adapters import (
    LAYERS,
    PUBLISHED,
    as_trained,
    file_weights,
    golden_weights,
    nested,
    save,
    save_for_checkpoint,
    shapes_of_file,
    tiny_form,
)
from support.models import tiny_model

from pack.nodes.files.safe_files import read_tensors
from pack.nodes.host.blocks import attention_blocks
from pack.nodes.image_adapters.adapter_fit import check_fits, cross_attentions
from pack.nodes.image_adapters.image_adapter import adapter_from

SMALL = dict(width=8, embed=6, dim=10, inner=64, depth=1, layers=[4, 4, 6])


def on_meta(shapes):
    return {name: torch.empty(shape, device="meta", dtype=torch.float16) for name, shape in shapes.items()}


def published(name):
    return adapter_from(on_meta(shapes_of_file(**PUBLISHED[name])), name)


def same(one, two):
    """Whether two adapters hold the same tensors."""
    pairs = [(getattr(a, part), getattr(b, part)) for a, b in zip(one.pairs, two.pairs) for part in ("to_k", "to_v")]
    pairs += [(a.gate, b.gate) for a, b in zip(one.pairs, two.pairs) if a.gate is not None or b.gate is not None]
    mine, theirs = one.projection.weights, two.projection.weights
    return (
        (one.variant, one.tokens, one.width, one.embed) == (two.variant, two.tokens, two.width, two.embed)
        and len(one.pairs) == len(two.pairs)
        and mine.keys() == theirs.keys()
        and all(torch.equal(a, b) for a, b in [*pairs, *((mine[key], theirs[key]) for key in mine)])
    )


@pytest.mark.parametrize(
    ("name", "variant", "tokens", "output", "tower", "family"),
    [
        ("model_sdxl", "base", 4, "image_embeds", "ViT-bigG", "SDXL"),
        ("model_sdxl_plus", "plus", 16, "penultimate_hidden_states", "ViT-H", "SDXL"),
        ("ip-adapter_sdxl_vit-h", "base", 4, "image_embeds", "ViT-H", "SDXL"),
        ("ip-adapter-plus_sdxl_vit-h", "plus", 16, "penultimate_hidden_states", "ViT-H", "SDXL"),
        ("ip-adapter_sd15", "base", 4, "image_embeds", "ViT-H", "SD1.5"),
        ("ip-adapter_sd15_vit-G", "base", 4, "image_embeds", "ViT-bigG", "SD1.5"),
        ("ip-adapter-plus_sd15", "plus", 16, "penultimate_hidden_states", "ViT-H", "SD1.5"),
        ("ip-adapter-full-face_sd15", "full-face", 257, "penultimate_hidden_states", "ViT-H", "SD1.5"),
    ],
)
def test_published_files_by_keys_and_shapes(name, variant, tokens, output, tower, family):
    adapter = published(name)
    form = PUBLISHED[name]
    assert (adapter.name, adapter.variant, adapter.tokens, adapter.width) == (name, variant, tokens, form["width"])
    assert (adapter.embed.output, adapter.embed.width, adapter.embed.tower) == (output, form["embed"], tower)
    assert adapter.family == f"{family} (context {form['width']})" and adapter.gated == name.startswith("model_")
    assert [pair.to_k.shape[0] for pair in adapter.pairs] == LAYERS[form["kind"]]
    assert all(pair.gate.shape == (1, len(pair.to_v)) for pair in adapter.pairs) if adapter.gated else True


@pytest.mark.parametrize(("name", "megabytes"), [("model_sdxl", 702.7), ("model_sdxl_plus", 847.7)])
def test_the_shapes_are_those_of_the_published_files(name, megabytes):
    """Section 4.1: what the files weigh is what their tensors do."""
    numbers = sum(math.prod(shape) for shape in shapes_of_file(**PUBLISHED[name]).values())
    assert round(2 * numbers / 1e6, 1) == megabytes


@pytest.mark.parametrize("name", ["sdxl_base", "sdxl_plus", "sd15_plus", "sd15_ip_adapter"])
def test_pairs_are_in_the_order_of_the_file(name):
    weights = golden_weights(name)
    adapter = adapter_from(weights, name)
    for number, pair in enumerate(adapter.pairs):
        key = f"ip_adapter.{2 * number + 1}"
        assert torch.equal(pair.to_k, weights[f"{key}.to_k_ip.weight"])
        assert torch.equal(pair.to_v, weights[f"{key}.to_v_ip.weight"])
        gate = weights.get(f"{key}.text_to_weight.weight")
        assert pair.gate is gate is None or torch.equal(pair.gate, gate)
        # as stored: nobody needs them twice as large
        assert pair.to_k.dtype == torch.float16 and not pair.to_k.requires_grad


@pytest.mark.parametrize("variant", ["base", "plus", "full-face"])
@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_all_layouts_are_one_adapter(tmp_path, variant, gate, dtype):
    weights = file_weights(variant=variant, gate=gate, dtype=dtype, **SMALL)
    plain = adapter_from(weights, "x")
    save(tmp_path / "flat.safetensors", weights)
    save(tmp_path / "nested.bin", weights)
    torch.save({"state_dict": nested(weights)}, tmp_path / "wrapped.ckpt")
    torch.save(weights, tmp_path / "flat.pt")
    torch.save(as_trained(weights), tmp_path / "trained.pth")
    save(tmp_path / "trained.safetensors", as_trained(weights))
    torch.save(as_trained(weights, "module."), tmp_path / "parallel.bin")
    torch.save({k: torch.nn.Parameter(t) for k, t in as_trained(weights).items()}, tmp_path / "parameters.bin")
    for path in sorted(tmp_path.iterdir()):
        found = adapter_from(read_tensors(path)[0], path.name)
        assert found.name == path.name and same(found, plain), path.name
        assert not any(t.requires_grad for t in found.projection.weights.values())
    assert plain.project(torch.randn(2, 6) if variant == "base" else torch.randn(2, 5, 6)).dtype == torch.float32


# what fits which model

FULL_SIZE = {
    "sd15": dict(
        num_res_blocks=[2] * 4,
        channel_mult=[1, 2, 4, 4],
        transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0],
        transformer_depth_output=[1] * 9 + [0] * 3,
        transformer_depth_middle=1,
        context_dim=768,
        num_heads=8,
    ),
    "sdxl": dict(
        num_res_blocks=[2] * 3,
        channel_mult=[1, 2, 4],
        transformer_depth=[0, 0, 2, 2, 10, 10],
        transformer_depth_output=[0, 0, 0, 2, 2, 2, 10, 10, 10],
        transformer_depth_middle=10,
        context_dim=2048,
        num_head_channels=64,
        use_linear_in_transformer=True,
    ),
}


@pytest.fixture(scope="module")
def unets():
    """The UNets of SD1.5 and SDXL in full size, without numbers."""
    shared = dict(
        image_size=32,
        in_channels=4,
        out_channels=4,
        model_channels=320,
        use_spatial_transformer=True,
        legacy=False,
        device="meta",
        operations=comfy.ops.disable_weight_init,
    )
    return {kind: openaimodel.UNetModel(**shared, **config) for kind, config in FULL_SIZE.items()}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_fit_their_model_alone(name, unets):
    own = PUBLISHED[name]["kind"]
    other = "sdxl" if own == "sd15" else "sd15"
    blocks = check_fits(published(name), unets[own])
    # section 4.3: the middle is last, though it runs before the output blocks
    if own == "sd15":
        inputs = [("input", n, 0) for n in (1, 2, 4, 5, 7, 8)]
        assert list(blocks) == [*inputs, *(("output", n, 0) for n in range(3, 12)), ("middle", 0, 0)]
    else:
        assert len(blocks) == 70 and blocks[:4] == tuple(("input", n, t) for n in (4, 5) for t in (0, 1))
        assert blocks[24] == ("output", 0, 0) and blocks[54] == ("output", 3, 0)
        assert blocks[60:] == tuple(("middle", 0, t) for t in range(10))
    names = {"sd15": "SD1.5 (context 768)", "sdxl": "SDXL (context 2048)"}
    with pytest.raises(ValueError) as caught:
        check_fits(published(name), unets[other])
    assert str(caught.value) == (
        f"{name} is made for {names[own]}, this model is {names[other]}; choose an adapter for {names[other]}, "
        f"or a checkpoint of {names[own]}"
    )


@pytest.mark.parametrize(("kind", "name"), [("sd15", "sd15_plus"), ("sdxl", "sdxl_base"), ("sd2", None)])
def test_every_cross_attention_has_its_pair(kind, name):
    unet = tiny_model(kind, seed=0 if kind == "sd2" else None).model.diffusion_model
    layers = cross_attentions(unet)
    assert sorted(layers) == sorted(attention_blocks(unet)) and list(layers)[-1][0] == "middle"
    if name:
        assert check_fits(adapter_from(golden_weights(name), name), unet) == tuple(layers)
    else:
        rows = [rows for rows, _ in layers.values()]
        adapter = adapter_from(file_weights(width=1024, embed=6, layers=rows), "sd2")
        assert check_fits(adapter, unet) == tuple(layers) and adapter.family == "SD2.x (context 1024)"


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_the_adapters_of_the_server_tests_fit_its_checkpoints(kind, tmp_path):
    save_for_checkpoint(kind, tmp_path / "x.bin", gate=True)
    adapter = adapter_from(read_tensors(tmp_path / "x.bin")[0], "x.bin")
    unet = openaimodel.UNetModel(**checkpoint.UNETS[kind], device="meta", operations=comfy.ops.disable_weight_init)
    assert len(check_fits(adapter, unet)) == len(adapter.pairs) and adapter.gated
    assert (adapter.embed.tower, adapter.tokens) == ("ViT-H", 16)


def test_other_counts_and_widths_of_the_same_family_are_refused():
    unet = tiny_model("sd15").model.diffusion_model
    form = tiny_form("sd15")
    assert check_fits(adapter_from(file_weights(**form), "x"), unet)
    short = adapter_from(file_weights(**{**form, "layers": form["layers"][:-1]}), "short.bin")
    with pytest.raises(ValueError, match="short.bin does not fit .* has 15 pairs .* the model has 16 cross-att"):
        check_fits(short, unet)
    other = adapter_from(file_weights(**{**form, "layers": form["layers"][::-1]}), "other.bin")
    with pytest.raises(ValueError, match=r"other.bin does not .* pair 1 is \[64, 32\], .*'input', 1, 0.* needs \[32,"):
        check_fits(other, unet)


@pytest.mark.parametrize(("name", "says"), [("Flux", "Flux"), ("OpenAISignatureMMDITWrapper", "SD3")])
def test_transformers_have_no_cross_attention(name, says):
    transformer = type(name, (torch.nn.Module,), {})()
    for ask in (cross_attentions, lambda unet: check_fits(published("model_sdxl"), unet)):
        with pytest.raises(ValueError, match=f"needs a UNet with cross-attention, but this model is {says};"):
            ask(transformer)


# what else lies in people's folders


def pairs_of(width=768, numbers=(1, 3), rows=320):
    return {f"ip_adapter.{n}.to_{part}_ip.weight": (rows, width) for n in numbers for part in "kv"}


FACE_ID = {
    "image_proj.proj.0.weight": (1024, 512),
    "image_proj.proj.0.bias": (1024,),
    "image_proj.proj.2.weight": (4 * 768, 1024),
    "image_proj.proj.2.bias": (4 * 768,),
    "image_proj.norm.weight": (768,),
    "image_proj.norm.bias": (768,),
}
RESAMPLED = {name: shape for name, shape in shapes_of_file("sdxl", "plus", 2048, 512).items() if "image_proj" in name}
KOLORS = {name: s for name, s in shapes_of_file("sdxl", "plus", 2048, 1024, dim=2048).items() if "image_proj" in name}
OTHERS = [
    (
        "ip-adapter-faceid-plus-kolors.bin",
        "a Kolors FaceID file",
        FACE_ID | {"image_proj.perceiver_resampler.proj_in.weight": (4096, 1024)} | pairs_of(),
    ),
    (
        "ms_adapter.bin",
        "an MS-Diffusion file",
        {"ms_adapter.1.to_k.weight": (4, 4), "dummy_image_tokens": (4, 8)},
    ),
    ("m.bin", "an MS-Diffusion file", RESAMPLED | {"image_proj.grounding_latents": (1, 16, 4)} | pairs_of(2048)),
    (
        "adapter_final.pt",
        "a MasterWeaver file",
        {"id_encoder.proj.weight": (4, 4), "adapter_modules.1.to_k_img.weight": (320, 768)},
    ),
    ("ip_adapter_plus_general.bin", "a Kolors adapter", KOLORS | pairs_of(2048, rows=640)),
    (
        "flux-ip-adapter.bin",
        "a FLUX or SD3 adapter",
        FACE_ID | {"ip_adapter.0.to_k_ip.weight": (3072, 4096), "ip_adapter.0.to_v_ip.weight": (3072, 4096)},
    ),
    ("xlabs.safetensors", "a FLUX or SD3 adapter", {"double_blocks.0.processor.ip_adapter_k_proj.weight": (4, 4)}),
    ("ip-adapter_pulid_sdxl_fp16.safetensors", "a PuLID file", {"id_adapter.latents": (1, 8, 4)}),
    (
        "photomaker-v1.bin",
        "a PhotoMaker file",
        {"id_encoder.a": (4, 4), "lora_weights.b.lora_up.weight": (4, 4)},
    ),
    ("style.safetensors", "a LoRA", {"lora_unet_down_blocks_0.lora_down.weight": (4, 4)}),
    ("peft.safetensors", "a LoRA", {"unet.down_blocks.0.attn1.to_k.lora_A.weight": (4, 4)}),
    ("control.pth", "a ControlNet", {"control_model.input_blocks.0.0.weight": (4, 4)}),
    (
        "instantid.safetensors",
        "a ControlNet",
        {"controlnet_cond_embedding.conv_in.bias": (4,), "down_blocks.0.x": (4,)},
    ),
    ("t2i.pth", "a T2I-Adapter", {"adapter.body.0.block1.weight": (4, 4)}),
    ("sd15.ckpt", "a checkpoint", {"model.diffusion_model.input_blocks.0.0.weight": (4, 4)}),
    ("unet.safetensors", "a UNet", {"down_blocks.0.resnets.0.conv1.weight": (4, 4), "conv_in.weight": (4, 4)}),
    ("trained.bin", "a UNet", {"unet.down_blocks.0.resnets.0.conv1.weight": (4, 4)}),
    ("model.safetensors", "a vision encoder", {"vision_model.embeddings.class_embedding": (4,)}),
    ("clip_l.safetensors", "a text encoder", {"text_model.embeddings.token_embedding.weight": (4, 4)}),
    ("vae.safetensors", "a VAE", {"decoder.conv_in.weight": (4, 4), "encoder.conv_in.weight": (4, 4)}),
]


@pytest.mark.parametrize(("name", "what", "shapes"), OTHERS, ids=[f"{o[1]} {o[0]}" for o in OTHERS])
def test_other_files_are_refused_by_what_they_are(name, what, shapes):
    with pytest.raises(ValueError) as caught:
        adapter_from(on_meta(shapes), name)
    said = str(caught.value)
    assert said.startswith(f"{name}: this is {what}") and "; use " in said and "\n" not in said
    assert said.endswith("This node needs an IP-Adapter or MIP-Adapter file")


def changed(**changes):
    weights = file_weights(gate=True, **SMALL)
    for key, value in changes.items():
        key = key.replace("__", ".")
        weights.pop(key) if value is None else weights.update({key: value})
    return weights


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        (changed(ip_adapter__3__to_v_ip__weight=None), "ip_adapter.3.to_v_ip.weight is missing"),
        (changed(ip_adapter__5__to_k_ip__weight=None), "ip_adapter.5.to_k_ip.weight is missing"),
        (changed(ip_adapter__5__text_to_weight__weight=None), "ip_adapter.5.text_to_weight.weight is missing"),
        (changed(ip_adapter__2__to_k_ip__weight=torch.zeros(4, 8)), "ip_adapter.2.to_k_ip.weight is unexpected"),
        (changed(ip_adapter__9__to_k_ip__weight=torch.zeros(4, 8)), r"ip_adapter.7.\w+.weight is missing"),
        (changed(ip_adapter__1__norm__weight=torch.zeros(4)), "ip_adapter.1.norm.weight is unexpected"),
        (changed(ip_adapter__more=torch.zeros(4)), "ip_adapter.more is unexpected"),
        (changed(ip_adapter__3__to_k_ip__weight=torch.zeros(4, 7)), r"3.to_k_ip.weight has the shape \[4, 7\] instead"),
        (changed(ip_adapter__3__to_v_ip__weight=torch.zeros(5, 8)), r"has the shape \[5, 8\] instead of \[4, 8\]"),
        (changed(ip_adapter__1__to_k_ip__weight=torch.zeros(())), "1.to_k_ip.weight has the shape"),
        (changed(ip_adapter__1__to_k_ip__weight=torch.zeros(8)), "1.to_k_ip.weight has the shape"),
        (changed(ip_adapter__5__text_to_weight__weight=torch.zeros(6, 1)), r"\[6, 1\] instead of \[1, 6\]"),
        (changed(image_proj__norm__bias=None), "image_proj.norm.bias is missing"),
        (changed(image_proj__more__weight=torch.zeros(3)), "image_proj.more.weight is unexpected"),
        (changed(image_proj__norm__weight=torch.zeros(3)), r"norm.weight has the shape \[3\] instead of \[8\]"),
        (changed(image_proj__proj__weight=torch.zeros(30, 6)), "30 rows, which is not a multiple of the token width 8"),
        (changed(image_proj__proj__weight=torch.zeros(32)), "not a matrix"),
        (changed(image_proj__proj__weight=None), "it has no image_proj.proj.weight"),
        (changed(image_proj__norm__bias=torch.zeros(8, dtype=torch.int8)), "norm.bias holds integers"),
        (changed(epoch__x=torch.zeros(1)), "epoch.x is unexpected"),
        ({"a": torch.zeros(2)}, "a is unexpected"),
        ({k: t for k, t in changed().items() if "image_proj" in k}, "ip_adapter.1.to_k_ip.weight is missing"),
        ({k: t for k, t in changed().items() if "ip_adapter" in k}, "it has no image_proj.proj.weight"),
    ],
)
def test_files_that_are_no_adapter(weights, says):
    with pytest.raises(ValueError, match=says) as caught:
        adapter_from(weights, "x.bin")
    assert str(caught.value).startswith("x.bin is not an IP-Adapter or MIP-Adapter file: ")
    assert str(caught.value).endswith("; choose one such as model_sdxl_plus.bin")


@pytest.mark.parametrize("key", sorted(name for name in shapes_of_file("sd15", "plus", **SMALL) if "image" in name))
def test_every_tensor_of_a_resampler_is_checked(key):
    weights = file_weights(variant="plus", **SMALL)
    with pytest.raises(ValueError, match="is missing|it has no"):
        adapter_from({name: t for name, t in weights.items() if name != key}, "x.bin")
    weights[key] = torch.zeros(*weights[key].shape, 2)
    with pytest.raises(ValueError, match="has the shape|not a multiple"):
        adapter_from(weights, "x.bin")
