"""Tiny checkpoint files that ComfyUI's own loader accepts: true architecture, random weights, about 9 MB.

A checkpoint's kind is read from shapes, so shapes must be true; the bytes behind them need not be: every
matrix is an overlapping view of one random buffer, which torch.save stores once.
"""

import argparse
import json
import math
import random
import sys
from pathlib import Path

import torch

BUFFER = 2_000_000
STD = 0.02

SHARED = dict(
    image_size=32, in_channels=4, out_channels=4, model_channels=320, use_spatial_transformer=True, legacy=False
)
# SD1.5 with one width for all levels; SDXL in the shallow variant that ComfyUI knows as Vega.
UNETS = {
    "sd15": dict(
        SHARED,
        num_res_blocks=[2, 2, 2, 2],
        channel_mult=[1, 1, 1, 1],
        transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0],
        transformer_depth_output=[1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
        transformer_depth_middle=1,
        context_dim=768,
        num_heads=8,
    ),
    "sdxl": dict(
        SHARED,
        num_res_blocks=[2, 2, 2],
        channel_mult=[1, 1, 1],
        transformer_depth=[0, 0, 1, 1, 2, 2],
        transformer_depth_output=[0, 0, 0, 1, 1, 1, 2, 2, 2],
        transformer_depth_middle=2,
        context_dim=2048,
        num_head_channels=64,
        use_linear_in_transformer=True,
        num_classes="sequential",
        adm_in_channels=2816,
    ),
}
VAE_SCALES = {"sd15": 0.18215, "sdxl": 0.13025}
# Of the last layers, tried out: latents and pictures get about the spread of real ones.
LAST_GAIN = {"taesd_encoder.14.weight": 6.0, "taesd_decoder.19.weight": 1.0}


def save(kind, path):
    """Write the tiny checkpoint of this kind ("sd15" or "sdxl"); ComfyUI must be importable."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    torch.save({"state_dict": state_dict(kind)}, part)
    part.replace(path)
    return path


def state_dict(kind):
    weights = Weights()
    found = {f"model.diffusion_model.{name}": weights.fill(name, shape) for name, shape in unet_shapes(kind)}
    found["model.diffusion_model.out.2.weight"] = weights.own((4, 320, 3, 3), std=0.01)
    if kind == "sd15":
        prefix = "cond_stage_model.transformer."
    else:
        prefix = "conditioner.embedders.0.transformer."
        for name, shape in open_clip_shapes("clip_config_bigg.json"):
            found[f"conditioner.embedders.1.model.{name}"] = weights.fill(name, shape)
    for name, shape in clip_shapes("sd1_clip_config.json"):
        found[prefix + name] = weights.fill(name, shape)
    for name, shape in vae_shapes():
        found[f"first_stage_model.{name}"] = vae_weight(weights, name, shape, VAE_SCALES[kind])
    return found


class Weights:
    """Hands out weights of any shape from one random buffer, the same ones in every run."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(0)
        self.random = random.Random(0)
        self.buffer = (torch.randn(BUFFER, generator=self.generator) * STD).half()
        self.one, self.zero = torch.ones(1).half(), torch.zeros(1).half()

    def fill(self, name, shape):
        if len(shape) < 2:
            return (self.zero if name.endswith("bias") else self.one).expand(shape)
        return self.view(shape)

    def view(self, shape):
        rows, length = shape[0], math.prod(shape[1:])
        start = self.random.randrange(BUFFER // 4)
        # Rows overlap. An odd distance keeps them from repeating each other with the period of the buffer.
        step = max(1, min(length + 1, (BUFFER - start - length - 1) // rows))
        step -= step > 1 and step % 2 == 0
        strides = [math.prod(shape[axis + 1 :]) for axis in range(1, len(shape))]
        return self.buffer.as_strided(shape, [step, *strides], start)

    def own(self, shape, std):
        return (torch.randn(shape, generator=self.generator) * std).half()


def vae_weight(weights, name, shape, scale):
    """A random TAESD whose pictures are neither black, nor one colour, nor glaring; `scale` is the model's own."""
    constants = {"taesd_decoder.19.bias": 0.5, "vae_scale": scale}
    if len(shape) < 2:
        return torch.full(shape, constants.get(name, 0.0)).half()
    weight = weights.own(shape, std=math.prod(shape[1:]) ** -0.5)
    if name.endswith("conv.4.weight"):
        # The last layer of a block: many blocks in a row must not blow up what they add to.
        weight *= 0.5
    if name in LAST_GAIN:
        # Inputs are positive here, so weights that do not sum to zero would tint everything.
        weight = (weight - weight.mean((1, 2, 3), keepdim=True)) * LAST_GAIN[name]
    return weight


def shapes(module):
    return [(name, tuple(tensor.shape)) for name, tensor in module.state_dict().items()]


def unet_shapes(kind):
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    return shapes(UNetModel(**UNETS[kind], device="meta", operations=comfy.ops.disable_weight_init))


def clip_shapes(config_file):
    import comfy.ops
    from comfy.clip_model import CLIPTextModel

    model = CLIPTextModel(clip_config(config_file), torch.float16, "meta", comfy.ops.disable_weight_init)
    return [(name, shape) for name, shape in shapes(model) if name.startswith("text_model.")]


def open_clip_shapes(config_file):
    """The larger text encoder of SDXL, in the names its files use."""
    config = clip_config(config_file)
    width, inner = config["hidden_size"], config["intermediate_size"]
    yield "token_embedding.weight", (49408, width)
    yield "positional_embedding", (77, width)
    yield "text_projection", (width, width)
    yield from linear("ln_final", width)
    for layer in range(config["num_hidden_layers"]):
        block = f"transformer.resblocks.{layer}."
        yield from linear(block + "ln_1", width)
        yield from linear(block + "ln_2", width)
        yield block + "attn.in_proj_weight", (3 * width, width)
        yield block + "attn.in_proj_bias", (3 * width,)
        yield from linear(block + "attn.out_proj", width, width)
        yield from linear(block + "mlp.c_fc", inner, width)
        yield from linear(block + "mlp.c_proj", width, inner)


def linear(name, *shape):
    return [(name + ".weight", shape), (name + ".bias", shape[:1])]


def vae_shapes():
    from comfy.taesd.taesd import TAESD

    return shapes(TAESD())


def clip_config(config_file):
    import comfy

    # `comfy` is a folder without __init__.py, so it has a path and no file.
    return json.loads((Path(next(iter(comfy.__path__))) / config_file).read_text(encoding="utf-8"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--comfyui", required=True, help="the folder that holds ComfyUI's main.py")
    parser.add_argument("--kind", choices=sorted(UNETS), default="sd15")
    parser.add_argument("out", metavar="OUT.ckpt")
    options = parser.parse_args()
    sys.path.insert(0, str(Path(options.comfyui).resolve()))
    from comfy.cli_args import args

    # Only shapes are made here; without this line ComfyUI looks for a graphics card at import.
    args.cpu = True
    save(options.kind, options.out)
