"""A mask from a point in a picture: the cluster of a model's self-attention that the point lies in."""

import comfy.model_management as mm
import torch

from ...kernels.attention_map import head_mean_map
from ...kernels.mask_pyramid import grid_mask
from ...kernels.masks import nearest_resize
from . import concept_conductor
from .blocks import unet_of
from .concept_passes import run_to
from .concept_rows import batch_of, block_of
from .conductor_layers import layers_of
from .inversion import inverted, level_at
from .layout_picture import LayoutPicture
from .pictures import LATENT_STEP
from .say import refusal
from .unet_inputs import compute_dtype, unet_inputs

# Where the published code looks: step 80 of 200, after as many steps from the other end as that needs at 50 in all.
TIMESTEP, STEPS = 596, 30


def layout_mask(model, vae, pixels, text, point, clusters):
    """MASK (1, H, W): white where the shape at a point (x, y in 0..1) of a picture is.

    pixels (1, H, W, 3); text: (context, values) of what it shows; clusters: into how many shapes it is divided. The
    model runs alone: its weights with their patches, no patches of attention. Raises ValueError for a point outside.
    """
    unet = unet_of(model, "Layout Mask")
    layers = layers_of(unet)
    for name, value in zip("xy", point, strict=True):
        if not 0 <= value <= 1:
            raise refusal(f"{name} is {value}; enter a part of the picture from 0 to 1")
    size = tuple(side // LATENT_STEP for side in pixels.shape[1:3])
    if min(size) < 8:
        raise refusal(f"layout_image is {pixels.shape[2]}x{pixels.shape[1]} pixels; it needs at least 64x64")
    base = model.model
    latent = LayoutPicture(pixels, text, vae, 0, 0).latent(base, size)
    mm.load_models_gpu([model], memory_required=base.memory_required([1, *latent.shape[1:]]))
    levels = [level_at(base.model_sampling, TIMESTEP * (i + 1) // STEPS) for i in range(STEPS)]
    noisy = inverted(base, latent, text, levels, layers)[-1:]

    like = torch.empty(0, device=mm.get_torch_device(), dtype=compute_dtype(base))
    inputs = unet_inputs(base, *text, latent)
    batch = batch_of([block_of(inputs, 1, like)], layers)
    rows = noisy if inputs.concat is None else torch.cat([noisy, inputs.concat], 1)
    timestep = torch.full((1,), float(TIMESTEP), device=like.device)
    options = {"sigmas": torch.full((1,), levels[-1], device=like.device), "cond_or_uncond": [0]}
    if batch.layered:
        options["patches"] = {"attn2_patch": [batch.reader(layers.order)]}
    q, k, heads, grid = run_to(
        layers.map, base.diffusion_model._forward, (rows.to(like), timestep, batch.context, batch.y), options
    )
    labels = concept_conductor.cluster(head_mean_map(q, k, heads)[0], clusters).to("cpu").view(grid)
    row, column = (min(side - 1, int(part * side)) for part, side in zip(reversed(point), grid, strict=True))
    shape = grid_mask(labels == labels[row, column], size).float()
    # white in whole latent pixels, so that the conductor finds the same cells again
    return nearest_resize(shape, (LATENT_STEP * size[0], LATENT_STEP * size[1]))[None]
