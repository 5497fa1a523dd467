"""Masks where words' maps are compared with them: on the grid of a quarter of a latent's sides."""

import torch.nn.functional as F

from ...kernels.masks import nearest_resize
from ..host.latents import LATENT_STEP
from .word_maps_kept import quarter_grid


def seen_at_quarter(masks):
    """(masks (n, H, W) each of which is seen there, whether one was not): it then shows in its brightest cell."""
    grid = quarter_grid(tuple(side // LATENT_STEP for side in masks.shape[-2:]))
    brightest, seen = (cells.flatten(1).amax(1) for cells in (masks, nearest_resize(masks, grid)))
    gone = ((brightest > 0) & (seen == 0)).nonzero().flatten().tolist()
    if gone:
        masks = masks.clone()
    for number in gone:
        place = int(F.adaptive_avg_pool2d(masks[number, None], grid).argmax())
        # the one pixel of a cell that is looked at
        row, column = (at * side // count for at, side, count in zip(divmod(place, grid[1]), masks.shape[-2:], grid))
        masks[number, row, column] = brightest[number]
    return masks, bool(gone)
