"""The gradient of a loss on a UNet's inside with respect to its latent: attention, memory, half precision."""

import math
from dataclasses import dataclass

import comfy.model_management as mm
import torch
from comfy.ldm.modules import attention as host_attention

from ..host.calls import live_unet, with_attention_override
from ..host.messages import input_error
from ..host.unet_inputs import bytes_of_call, compute_dtype

# Bytes of activations that a gradient keeps per latent pixel and row, at two bytes per value: computed for the true
# UNets, by number of output blocks. On the way to the layer of layout guidance (0.30 GB for 64 x 64, 3.22 GB for
# 128 x 128), and on the whole way.
ACTIVATIONS = {12: 0.30e9 / 64**2, 9: 3.22e9 / 128**2}
OF_ALL_LAYERS = {12: 0.77e9 / 64**2, 9: 5.34e9 / 128**2}
# Where the largest gradient of the layer's output is scaled to in half precision; smaller ones vanish on the way back.
PEAK = 0.125


def differentiable_options(options):
    """The options with an attention that has a backward pass: quantized and hand-written backends have none."""
    return with_attention_override(options, _plain_attention)


def gradient_fits(base, rows, latent, activations=ACTIVATIONS):
    """Whether free memory holds a forward of `rows` rows of a latent (b, C, h, w) and what its gradient keeps.

    activations: those of the way that is taken, ACTIVATIONS or OF_ALL_LAYERS.
    """
    forward = bytes_of_call(base, rows, latent.shape)
    return rows * bytes_kept(base, latent.shape, activations) + forward < mm.get_free_memory(latent.device)


def bytes_kept(base, shape, activations):
    """Bytes that a gradient of one row of a latent of this shape (b, C, h, w) keeps; as above."""
    size = torch.empty(0, dtype=compute_dtype(base)).element_size()
    per_pixel = activations.get(len(live_unet(base).output_blocks), max(activations.values()))
    return per_pixel * size / 2 * math.prod(shape[2:])


@dataclass(frozen=True)
class Guided:
    """What takes a gradient: how messages call it, and the input whose 0 switches it off."""

    label: str
    switch: str


def gradient_of(loss_of, output, leaf, guided):
    """As `gradient_through`, of a loss on one tensor; ValueError as there."""
    return gradient_through(loss_of, [output], leaf, guided)


def gradient_through(loss_of, outputs, leaf, guided):
    """d loss / d leaf (shape of leaf, float32), where loss_of(*outputs in at least float32) is the loss.

    outputs: tensors of the UNet's inside, made of the leaf, in the model's dtype. The way back is taken in two stages:
    to the outputs in full precision, then through the UNet, scaled so that small values of half precision do not
    vanish. Raises ValueError for outputs or a loss that is no number, and where half precision overflows at every
    scale.
    """
    found = [one.detach().to(torch.promote_types(one.dtype, torch.float32)).requires_grad_(True) for one in outputs]
    # a model that predicts the picture itself leaves the latent out of the loss
    of_outputs = torch.autograd.grad(loss_of(*found), found, materialize_grads=True)
    half = outputs[0].element_size() < 4
    peak = max(float(one.abs().max()) for one in of_outputs)
    if not all(bool(torch.isfinite(one).all()) for one in of_outputs):
        raise input_error(
            f"{guided.label} met NaN or infinite values: they came with the latent or a prompt, from the model or from "
            f"another patch; look at the picture without it ({guided.switch} 0)"
        )
    if peak == 0:
        return torch.zeros_like(leaf)
    scale = 2.0 ** math.floor(math.log2(PEAK / peak)) if half else 1.0
    for _ in range(3 if half else 1):
        scaled = [(of_one * scale).to(one.dtype) for of_one, one in zip(of_outputs, outputs, strict=True)]
        (gradient,) = torch.autograd.grad(outputs, leaf, scaled, retain_graph=half)
        if torch.isfinite(gradient).all():
            return gradient / scale
        scale /= 256
    kind = str(outputs[0].dtype).removeprefix("torch.")
    raise input_error(
        f"{guided.label} produced NaN or infinite values in {kind}; start ComfyUI with --fp32-unet, or set "
        f"{guided.switch} to 0"
    )


def _plain_attention(function, q, k, v, heads, *args, **kwargs):
    return host_attention.attention_pytorch(q, k, v, heads, *args, **kwargs)
