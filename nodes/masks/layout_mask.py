"""A mask from a point in a picture: the cluster of a model's self-attention that the point lies in."""

import comfy.model_management as mm
import numpy as np
import torch
from scipy.ndimage import label

from ...kernels.attention_map import head_mean_map
from ...kernels.kmeans import kmeans
from ...kernels.mask_pyramid import grid_mask
from ...kernels.masks import nearest_resize
from ..host.bare_unet import bare_unet
from ..host.blocks import shape_block, unet_of
from ..host.calls import bare_forward, channels_of, clean_options, live_unet
from ..host.compiled import uncompiled
from ..host.latents import LATENT_STEP, centre_crop, pixels_of
from ..host.layered_prompts import models_of
from ..host.messages import input_error
from ..host.partial_pass import run_to
from ..host.text_rows import one_text
from ..host.unet_inputs import check_prompt, compute_dtype, unet_inputs
from ..host.when import unet_timestep, whole_timestep
from ..inversion.inversion import inverted, level_at
from ..inversion.inversion_cache import key_of
from ..inversion.layout_picture import LayoutPicture
from .shape_maps import shape_map

# Where the published code looks: at step 80 of its 200. They begin at timestep 996 and are 5 apart, so that is
# 996 - 5 * 80 = 596; the 30 steps that bring the picture there are as fine as 50 over all timesteps.
TIMESTEP, STEPS = 596, 30
# Tries of k-means, as the conductor's default.
RESTARTS = 100


def layout_mask(model, vae, pixels, text, point, clusters, cluster=None, connected=False):
    """MASK (1, H, W): white where the shape at a point (x, y in 0..1) of a picture is.

    pixels (1, H, W, 3); text: (context, values) of what it shows; clusters: into how many shapes it is divided;
    cluster(rows (n, d), k): the label (n,) of each row, k-means if None; connected: leave out what does not touch the
    part with the point, as one of two dogs that self-attention sees as one shape. The model runs alone: its weights
    with their patches, no patches of attention. Raises ValueError for a picture under 64 x 64
    pixels and for a prompt of another model.
    """
    cluster = cluster or (lambda rows, k: kmeans(rows, k, RESTARTS))
    unet = unet_of(model, "Layout Mask")
    block = shape_block(unet, "Layout Mask")
    size = tuple(side // LATENT_STEP for side in pixels.shape[1:3])
    if min(size) < 8:
        raise input_error(
            f"layout_image is {pixels.shape[2]}x{pixels.shape[1]} pixels; connect a picture of at least 64x64"
        )
    check_prompt(model, [text], "layout_positive")
    rows, columns = centre_crop(pixels.shape[1:3], pixels_of(size))
    latent = LayoutPicture(pixels[:, rows, columns], text, vae, 0, 0).latent(model.model, size)
    mm.load_models_gpu([model, *models_of(text)], memory_required=model.model.memory_required([1, *latent.shape[1:]]))
    sampling, latent = model.model.model_sampling, latent.to(model.load_device)
    levels = [level_at(sampling, TIMESTEP * (i + 1) // STEPS) for i in range(STEPS)]
    with uncompiled(), bare_unet(model.model):
        key = key_of(model.model, latent, text, levels), block
        found, grid = shape_map(key, lambda: _map(model.model, block, latent, text, levels))
    labels = cluster(found.to(model.load_device), clusters).to("cpu").view(grid)
    cell = tuple(min(side - 1, int(part * side)) for part, side in zip(reversed(point), grid, strict=True))
    shape = labels == labels[cell]
    shape = grid_mask(_part_with(cell, shape) if connected else shape, size).float()
    # in the picture's own frame, which the conductor crops as the model saw it: white in whole latent pixels there
    mask = torch.zeros(1, *pixels.shape[1:3])
    part = mask[0, rows, columns]
    part[:] = nearest_resize(shape, tuple(part.shape))
    return mask


def _part_with(cell, shape):
    """The part of a shape (h, w) that is connected with a cell of it, over corners too."""
    parts, _ = label(shape.numpy(), structure=np.ones((3, 3)))
    return torch.from_numpy(parts == parts[cell])


def _map(base, block, latent, text, levels):
    """(map (n, n) on the CPU, its grid) of the self-attention at a block, on the picture's latent (1, C, h, w) brought
    to the last of some noise levels.
    """
    device = latent.device
    noisy = inverted(base, latent, text, levels)[-1:]
    like = torch.empty(0, device=device, dtype=compute_dtype(base))
    inputs = unet_inputs(base, *text, latent.cpu())
    batch = one_text(inputs, live_unet(base), like)
    sampling = base.model_sampling
    timestep = torch.full((1,), unet_timestep(levels[-1], sampling), device=device)
    options = clean_options(levels[-1], device, schedule=levels[::-1])
    options = batch.read_by(options, whole_timestep(levels[-1], sampling))
    noisy = inputs.beside(noisy, channels_of(base), latent).to(like)
    seen = run_to(block, bare_forward(base), (noisy, timestep, batch.context, batch.y), options)
    return head_mean_map(seen.q, seen.k, seen.heads)[0].cpu(), seen.grid
