"""Image adapters to test with: tiny or of the published sizes, in the published names; and a tiny vision tower."""

import json
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from support import checkpoint
from support.golden_data import GOLDEN, case

FOLDER = GOLDEN / "mip_adapter"
# Rows of the cross-attentions in file order: input, output, middle.
LAYERS = {
    "sd15": [320] * 2 + [640] * 2 + [1280] * 2 + [1280] * 3 + [640] * 3 + [320] * 3 + [1280],
    "sdxl": [640] * 4 + [1280] * 20 + [1280] * 30 + [640] * 6 + [1280] * 10,
}
# variant, width and inside of the projections that are published; E is the encoder's width.
PUBLISHED = {
    "model_sdxl": dict(kind="sdxl", width=2048, embed=1280, gate=True),
    "model_sdxl_plus": dict(kind="sdxl", variant="plus", width=2048, embed=1280, dim=1280, inner=1280, gate=True),
    "ip-adapter_sdxl_vit-h": dict(kind="sdxl", width=2048, embed=1024),
    "ip-adapter-plus_sdxl_vit-h": dict(kind="sdxl", variant="plus", width=2048, embed=1280, dim=1280, inner=1280),
    "ip-adapter_sd15": dict(kind="sd15", width=768, embed=1024),
    "ip-adapter_sd15_vit-G": dict(kind="sd15", width=768, embed=1280),
    "ip-adapter-plus_sd15": dict(kind="sd15", variant="plus", width=768, embed=1280, dim=768, inner=768),
    "ip-adapter-full-face_sd15": dict(kind="sd15", variant="full-face", width=768, embed=1280, dim=1280),
}


def shapes_of_file(
    kind="sd15", variant="base", width=768, embed=1024, dim=768, inner=768, depth=4, gate=False, layers=None
):
    """{published name: shape} of a file; `layers` are the rows of its cross-attentions."""
    shapes = {}
    for number, rows in enumerate(LAYERS[kind] if layers is None else layers):
        name = f"ip_adapter.{2 * number + 1}"
        shapes |= {f"{name}.to_k_ip.weight": (rows, width), f"{name}.to_v_ip.weight": (rows, width)}
        if gate:
            shapes[f"{name}.text_to_weight.weight"] = (1, rows)

    def linear(name, out, inner, bias=True):
        shapes[f"image_proj.{name}.weight"] = (out, inner)
        if bias:
            shapes[f"image_proj.{name}.bias"] = (out,)

    def norm(name, width):
        shapes.update({f"image_proj.{name}.{part}": (width,) for part in ("weight", "bias")})

    if variant == "base":
        linear("proj", 4 * width, embed)
        norm("norm", width)
    elif variant == "full-face":
        linear("proj.0", dim, embed)
        linear("proj.2", width, dim)
        norm("proj.3", width)
    else:
        shapes["image_proj.latents"] = (1, 16, dim)
        linear("proj_in", dim, embed)
        linear("proj_out", width, dim)
        norm("norm_out", width)
        for layer in range(depth):
            for part in ("0.norm1", "0.norm2", "1.0"):
                norm(f"layers.{layer}.{part}", dim)
            for part, out, into in (
                ("0.to_q", inner, dim),
                ("0.to_kv", 2 * inner, dim),
                ("0.to_out", dim, inner),
                ("1.1", 4 * dim, dim),
                ("1.3", dim, 4 * dim),
            ):
                linear(f"layers.{layer}.{part}", out, into, bias=False)
    return shapes


def file_weights(seed=0, dtype=torch.float16, **form):
    """Random weights of a file: matrices N(0, 1/fan_in), norms near 1."""
    generator = torch.Generator().manual_seed(seed)

    def fill(name, shape):
        values = torch.randn(shape, generator=generator)
        scale = 0.1 if len(shape) == 1 else shape[-1] ** -0.5
        return (values * scale + (len(shape) == 1 and name.endswith("weight"))).to(dtype)

    return {name: fill(name, shape) for name, shape in shapes_of_file(**form).items()}


def tiny_form(kind, variant="base", gate=False):
    """What `file_weights` needs for an adapter that fits a tiny golden UNet and the tiny vision tower."""
    golden = golden_weights("sdxl_base" if kind == "sdxl" else "sd15_plus")
    rows = {int(name.split(".")[1]): len(t) for name, t in golden.items() if name.endswith("to_k_ip.weight")}
    form = dict(width=48 if kind == "sdxl" else 32, embed=24 if variant == "base" else 32)
    layers = [rows[number] for number in sorted(rows)]
    return dict(form, variant=variant, dim=40, inner=128, depth=2, gate=gate, layers=layers)


def golden_weights(name):
    """{published name: tensor} of a recorded adapter: sdxl_base, sdxl_plus, sd15_plus, sd15_ip_adapter."""
    return load_file(FOLDER / f"weights_{name}.safetensors")


def nested(weights):
    """The published container of a pickle."""
    groups = {}
    for name, t in weights.items():
        group, _, rest = name.partition(".")
        groups.setdefault(group, {})[rest] = t
    return groups


def as_trained(weights, prefix=""):
    """A raw training checkpoint: the UNet too, and other names."""
    renamed = {
        name.replace("image_proj.", "image_proj_model.", 1).replace("ip_adapter.", "adapter_modules.", 1): t
        for name, t in weights.items()
    }
    unet = {"unet.conv_in.weight": torch.zeros(4, 4, 3, 3), "unet.down_blocks.0.resnets.0.norm1.weight": torch.ones(4)}
    return {f"{prefix}{name}": t for name, t in {**unet, **renamed}.items()}


def save(path, weights):
    """Writes a file as its ending says: flat safetensors, or the published pickle."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(nested(weights), path)
    return path


def tiny_clip_vision():
    """A CLIP_VISION of the host around the tower of the golden case `encode` (56 pixels, 24 and 32 wide)."""
    import comfy.clip_vision

    tensors, parameters = case("mip_adapter/encode")
    config = {**parameters["clip_config"], "model_type": "clip_vision_model", "layer_norm_eps": 1e-5}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        tower = comfy.clip_vision.ClipVisionModel(str(path))
    missing, unexpected = tower.load_sd({k[5:]: t for k, t in tensors.items() if k.startswith("clip/")})
    assert not missing and not unexpected
    return tower


def save_for_checkpoint(kind, path, gate=False):
    """Writes a plus adapter for the tiny checkpoint of this kind and ViT-H: true widths."""
    order = ("input_blocks", "output_blocks", "middle_block")
    found = []
    for name, shape in checkpoint.unet_shapes(kind):
        if name.endswith("attn2.to_k.weight"):
            group, *numbers = name.split(".")
            found.append((order.index(group), [int(part) for part in numbers if part.isdigit()], shape))
    rows = [shape[0] for *_, shape in sorted(found)]
    form = dict(variant="plus", width=found[0][-1][1], embed=1280, dim=64, inner=64, depth=1, layers=rows)
    weights = checkpoint.Weights()
    # each with values of its own: the pack's reader refuses views of one buffer, which torch.save would store once
    save(
        path,
        {
            name: weights.fill(name, shape).clone(memory_format=torch.contiguous_format)
            for name, shape in shapes_of_file(gate=gate, **form).items()
        },
    )


def save_vision(path, config="clip_vision_config_h.json"):
    """Writes a vision tower (ViT-H) of true shapes and few bytes; ComfyUI must be importable."""
    import comfy.clip_model
    import comfy.clip_vision
    import comfy.ops

    config = json.loads((Path(comfy.clip_vision.__file__).parent / config).read_text(encoding="utf-8"))
    tower = comfy.clip_model.CLIPVisionModelProjection(config, torch.float16, "meta", comfy.ops.disable_weight_init)
    weights = checkpoint.Weights()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({name: weights.fill(name, tuple(t.shape)) for name, t in tower.state_dict().items()}, path)
    return path
