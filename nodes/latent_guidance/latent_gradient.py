"""The gradient of a loss on a UNet's inside with respect to its latent: attention, memory, half precision."""

import math

import comfy.model_management as mm
import torch
from comfy.ldm.modules import attention as host_attention

from ..host.calls import with_attention_override
from ..host.messages import input_error
from ..host.unet_inputs import compute_dtype

# Bytes of activations that a gradient keeps per latent pixel and row, at two bytes per value: computed for the true
# UNets (0.30 GB for 64 x 64, 3.22 GB for 128 x 128), by number of output blocks.
ACTIVATIONS = {12: 0.30e9 / 64**2, 9: 3.22e9 / 128**2}
# Where the largest gradient of the layer's output is scaled to in half precision; smaller ones vanish on the way back.
PEAK = 0.125


def differentiable_options(options):
    """The options with an attention that has a backward pass: quantized and hand-written backends have none."""
    return with_attention_override(options, _plain_attention)


def gradient_fits(base, rows, latent):
    """Whether free memory holds a forward of `rows` rows of a latent (b, C, h, w) and what its gradient keeps."""
    size = torch.empty(0, dtype=compute_dtype(base)).element_size()
    per_pixel = ACTIVATIONS[len(base.diffusion_model.output_blocks)] * size / 2
    forward = base.memory_required([rows, *latent.shape[1:]]) * 1.5
    return per_pixel * rows * math.prod(latent.shape[2:]) + forward < mm.get_free_memory(latent.device)


def gradient_of(loss_of, output, leaf):
    """d loss / d leaf (shape of leaf, float32), where loss_of(output in at least float32) is the loss.

    output: a tensor of the UNet's inside, made of the leaf, in the model's dtype. The way back is taken in two stages:
    to the output in full precision, then through the UNet, scaled so that small values of half precision do not vanish.
    Raises ValueError for an output or a loss that is no number, and where half precision overflows at every scale.
    """
    found = output.detach().to(torch.promote_types(output.dtype, torch.float32)).requires_grad_(True)
    (of_output,) = torch.autograd.grad(loss_of(found), found)
    half = output.element_size() < 4
    peak = float(of_output.abs().max())
    if not math.isfinite(peak):
        raise input_error(
            "layout guidance met NaN or infinite values: they came with the latent or a prompt, from the model or from "
            "another patch; look at the picture without guidance (guidance_weight 0)"
        )
    if peak == 0:
        return torch.zeros_like(leaf)
    scale = 2.0 ** math.floor(math.log2(PEAK / peak)) if half else 1.0
    for _ in range(3 if half else 1):
        scaled = (of_output * scale).to(output.dtype)
        (gradient,) = torch.autograd.grad(output, leaf, scaled, retain_graph=half)
        if torch.isfinite(gradient).all():
            return gradient / scale
        scale /= 256
    kind = str(output.dtype).removeprefix("torch.")
    raise input_error(
        f"layout guidance produced NaN or infinite values in {kind}; start ComfyUI with --fp32-unet, or set "
        "guidance_weight to 0"
    )


def _plain_attention(function, q, k, v, heads, *args, **kwargs):
    return host_attention.attention_pytorch(q, k, v, heads, *args, **kwargs)
