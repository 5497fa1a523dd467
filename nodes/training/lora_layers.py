"""Which layers of a UNet and of text encoders a LoRA learns, by the names that diffusers gives them."""

import math

import torch

from ..host.families import CONTEXT_WIDTHS
from ..host.messages import input_error
from ..host.seeded import seeded_noise, seeded_shares
from ..host.weight_patching import keys_by_diffusers
from .learned import TEXT_PARTS, UNET, leaf

# What the names of a choice's layers end with.
_ATTENTION = tuple(f"{kind}.{side}" for kind in ("attn1", "attn2") for side in ("to_q", "to_k", "to_v", "to_out.0"))
_AROUND = ("ff.net.2", "proj_in", "proj_out")
TARGETS = {
    "attention": _ATTENTION,
    "transformer": (*_ATTENTION, "ff.net.0.proj", *_AROUND),
    "transformer without ff.net.0": (*_ATTENTION, *_AROUND),
    "cross": ("attn2.to_k", "attn2.to_v"),
}
_TEXT = ("q_proj", "k_proj", "v_proj", "out_proj")


def unet_layers(base, unet, targets):
    """{(part, diffusers name): layer} of a UNet that end as one of the targets; ValueError if there is none."""
    layers = dict(unet.named_modules())
    found = {}
    for name, own in keys_by_diffusers(base).items():
        module = name.removesuffix(".weight")
        if name != module and module.endswith(tuple(f".{target}" for target in targets)):
            layer = layers.get(own.removesuffix(".weight"))
            if layer is not None:
                found[UNET, module] = layer
    if not found:
        raise input_error(f"targets: this model has no layer named {', '.join(targets)}; choose other targets")
    return dict(sorted(found.items()))


def text_layers(clip):
    """The same of the text encoders of a CLIP: the four projections of all their layers."""
    found = {}
    for part, encoders in TEXT_PARTS.items():
        for encoder in encoders:
            network = getattr(clip.cond_stage_model, f"clip_{encoder}", None)
            for name, layer in () if network is None else network.transformer.named_modules():
                if ".self_attn." in name and name.endswith(_TEXT):
                    found[part, name] = layer
    return found


def fresh_lora(layers, rank, seed, start="normal", device=None):
    """{part: {name: [down, up]}} for layers: down from a seed, up 0; start: "uniform" as
    Mix-of-Show has it, or "normal" as diffusers and MagicTailor. ValueError for a rank beyond a layer's sides."""
    lora = {}
    for (part, name), layer in layers.items():
        wide, high = _sides_of(layer)
        if rank > min(wide, high):
            raise input_error(f"rank is {rank}, but {name} is {wide} by {high}: enter {min(wide, high)} or less")
        if start == "uniform":
            down = (2 * seeded_shares(f"{seed}/{part}.{name}", (rank, wide)) - 1) / math.sqrt(wide)
        else:
            down = seeded_noise(f"{seed}/{part}.{name}", (rank, wide)) / rank
        lora.setdefault(part, {})[name] = [leaf(down, device), leaf(torch.zeros(high, rank), device)]
    return lora


def _sides_of(layer):
    """(in, out) of a linear layer or a 1 x 1 convolution."""
    if isinstance(layer, torch.nn.Conv2d):
        return layer.in_channels, layer.out_channels
    return layer.in_features, layer.out_features


def check_width(model, clip_width):
    """ValueError where a CLIP's contexts are not as wide as what the UNet of a MODEL reads."""
    width = model.model.model_config.unet_config.get("context_dim")
    if width != clip_width:
        families = [CONTEXT_WIDTHS.get(one, "another family") for one in (clip_width, width)]
        raise input_error(
            f"clip makes contexts {clip_width} wide ({families[0]}), the model reads {width} ({families[1]}); connect "
            "the CLIP of the model's own checkpoint"
        )
