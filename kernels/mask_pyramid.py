"""Picture-space masks -> zeros and ones at the token grids of a UNet's layers (Concept Conductor, arXiv 2408.03632)."""

import torch
import torch.nn.functional as F


def coverage(mask, size):
    """How much of each cell of an (h, w) grid a mask covers: bilinear with antialias, corners not aligned.

    mask (..., H, W) in 0..1, any dtype; returns (..., h, w) float32 in 0..1.
    """
    if tuple(mask.shape[-2:]) == tuple(size):
        return mask.float()
    flat = mask.float().reshape(-1, 1, *mask.shape[-2:])
    resized = F.interpolate(flat, size=tuple(size), mode="bilinear", antialias=True, align_corners=False)
    return resized.reshape(*mask.shape[:-2], *size)


def grid_mask(mask, size):
    """The cells of an (h, w) grid that a mask covers by more than half (a tie is left out).

    mask (..., H, W) in 0..1; returns (..., h, w) bool.
    """
    return coverage(mask, size) > 0.5


def without_seams(covered, masks):
    """Gives each cell that no mask has taken to the one with most coverage, where all together cover more than half.

    covered (N, ..., h, w): `coverage` of each of N masks; masks (N, ..., h, w) bool; returns bool. Abutting masks lose
    the cells of their border at coarse levels otherwise: half a cell each is no cell for either.
    """
    left_over = (covered.sum(0) > 0.5) & ~masks.any(0)
    most = covered.argmax(0, keepdim=True)
    number = torch.arange(len(masks), device=masks.device).reshape(-1, *[1] * (masks.ndim - 1))
    return masks | (left_over & (number == most))
