"""A picture of references and of their masks at the token grids of a UNet."""

import torch
from PIL import Image, ImageDraw

from ...kernels.masks import token_mask
from ..host.blocks import grid_at
from ..host.panels import INK, as_images, as_picture, panel, write
from .reference_views import views_of

# The token grids of a 512 x 512 picture at the three levels of the UNet that have self-attention.
AREA, LEVELS = 512 * 512, (0, 1, 2)
_PANEL, _CAPTION, _GAP = 256, 36, 6
WARNING = (255, 96, 80)
# What a mask leaves out is dimmed to this share of its brightness.
DIM = 0.18


def preview(references):
    """IMAGE (r, H, W, 3): one row of panels per picture, the mask over it and then its tokens on three grids."""
    return as_images([_row(view) for view in views_of(references, AREA)])


def _row(view):
    sheet = panel((4 * _PANEL + 3 * _GAP, _PANEL + _CAPTION))
    picture = view.pixels[0]
    height, width = picture.shape[:2]
    mask = torch.ones(1, 1) if view.mask is None else view.mask
    _paste(sheet, 0, _dimmed(picture, token_mask(mask, (height, width), view.frame)), Image.Resampling.BILINEAR)
    _write(sheet, 0, f"{view.label}, strength {view.reference.strength:g}", f"{width} x {height} pixels", INK)
    for column, level in enumerate(LEVELS, 1):
        grid = grid_at(level, view.latent_size)
        tokens = token_mask(mask, grid, view.frame)
        small = torch.nn.functional.interpolate(picture.movedim(-1, 0)[None], size=grid, mode="area")[0].movedim(0, -1)
        _paste(sheet, column, _dimmed(small, tokens), Image.Resampling.NEAREST)
        kept = int((tokens > 0).sum())
        share = f"{kept} of {tokens.numel()} tokens" if kept else "no token left: the reference is off here"
        _write(sheet, column, f"{grid[1]} x {grid[0]} grid", share, INK if kept else WARNING)
    return sheet


def _dimmed(picture, mask):
    return as_picture(picture * (DIM + (1 - DIM) * mask[..., None]))


def _paste(sheet, column, picture, resampling):
    scale = _PANEL / max(picture.size)
    picture = picture.resize([max(1, round(side * scale)) for side in picture.size], resampling)
    left = column * (_PANEL + _GAP) + (_PANEL - picture.width) // 2
    sheet.paste(picture, (left, (_PANEL - picture.height) // 2))


def _write(sheet, column, first, second, colour):
    draw = ImageDraw.Draw(sheet)
    left = column * (_PANEL + _GAP) + 2
    write(draw, (left, _PANEL + 2), first, 13)
    write(draw, (left, _PANEL + 18), second, 13, colour)
