"""Pictures as the tiles of one picture, one tile left free for a model to fill (arXiv 2501.15641)."""

import torch
import torch.nn.functional as F

from ..host.latents import LATENT_STEP, checked_images
from ..host.messages import input_error, warn_user
from .panel_wire import Panel

# {layout: (columns, rows, free cell, the cells in the order in which pictures fill them, cells of pinned pictures)};
# a cell is (row, column)
_AROUND = ((0, 1), (0, 0), (0, 2), (1, 0), (1, 2), (2, 1), (2, 0), (2, 2))
LAYOUTS = {
    "3x3 middle": (3, 3, (1, 1), _AROUND, ((0, 1), (2, 1), (1, 0), (1, 2))),
    "2x2 last": (2, 2, (1, 1), ((0, 0), (0, 1), (1, 0)), ((0, 0), (0, 1), (1, 0))),
    "1x2 right": (2, 1, (0, 1), ((0, 0),), ((0, 0),)),
}
# What stands on the free tile, as inpainting nodes blank it.
GREY = 0.5
# Models and VAEs cut a picture to a multiple of their step; a larger difference is a result of another scale.
CUT = 16


def panel_grid(images, layout, tile, pinned=None):
    """(IMAGE (1, H, W, 3), MASK (1, H, W) white on the free tile, Panel) of pictures.

    images: IMAGE, repeated in turn until the grid is full; layout: a name of LAYOUTS; tile: (width, height) of one tile
    in pixels; pinned: IMAGE of pictures for fixed places, over what lies there. Raises ValueError for no picture.
    """
    columns, rows, free, cells, fixed = LAYOUTS[layout]
    width, height = _even_tile(tile)
    pictures = _as_many(checked_images(images, "images"), len(cells), "images")
    placed = {cell: pictures[i % len(pictures)] for i, cell in enumerate(cells)}
    if pinned is not None:
        placed |= zip(fixed, _as_many(checked_images(pinned, "pinned"), len(fixed), "pinned"), strict=False)
    canvas = torch.full((1, rows * height, columns * width, 3), GREY)
    mask = torch.zeros(canvas.shape[:3])
    for (row, column), picture in placed.items():
        canvas[0, _part(row, height), _part(column, width)] = as_tile(picture, (width, height))
    mask[0, _part(free[0], height), _part(free[1], width)] = 1
    left, top = free[1] * width, free[0] * height
    return canvas, mask, Panel((columns * width, rows * height), (left, top, width, height))


def as_tile(picture, tile):
    """The middle (h, w, 3) of a picture (H, W, 3) whose shorter side is brought to the longer one of a tile (w, h)."""
    sides, longer = picture.shape[:2], max(tile)
    # in whole numbers: a fraction of a pixel too little would leave a black edge
    size = [side * longer // min(sides) for side in sides]
    scaled = F.interpolate(picture.movedim(-1, 0)[None], size=size, mode="bicubic", antialias=True)[0].clamp(0, 1)
    left, top = round((size[1] - tile[0]) / 2), round((size[0] - tile[1]) / 2)
    return scaled[:, top : top + tile[1], left : left + tile[0]].movedim(0, -1)


def panel_crop(images, panel):
    """The free tile (b, h, w, 3) of results (b, H, W, 3), which may be cut at the edges or of another scale.

    Raises ValueError for no picture, and for one of another aspect than the canvas.
    """
    if panel is None:
        raise input_error("panel is empty; connect the panel of Panel Grid")
    images = checked_images(images, "image")
    sizes = [(side, whole) for side, whole in zip((images.shape[2], images.shape[1]), panel.size, strict=True)]
    cut = all(abs(side - whole) < CUT for side, whole in sizes)
    if not cut:
        # what is cut before the scaling may be missing after it
        scales = [side / whole for side, whole in sizes]
        if max(scales) > min(scales) * (1 + CUT / min(panel.size)):
            came, made = "x".join(map(str, (s for s, _ in sizes))), "x".join(map(str, panel.size))
            raise input_error(f"the picture is {came}, the panel is {made}; connect the result of this panel's picture")
    spans = [
        _span(side, whole, panel.tile[axis], panel.tile[axis + 2], cut) for axis, (side, whole) in enumerate(sizes)
    ]
    return images[:, spans[1], spans[0]]


def _span(side, whole, start, length, cut):
    """The tile along one axis of a result of a side, where the canvas had `whole`, as a slice."""
    if cut:
        start = max(0, round(start + (side - whole) / 2))
    else:
        start, length = round(start * side / whole), round(length * side / whole)
    return slice(start, min(side, start + length))


def _even_tile(tile):
    even = tuple(-(-side // LATENT_STEP) * LATENT_STEP for side in tile)
    if even != tuple(tile):
        warn_user(f"tiles are made {even[0]}x{even[1]}: tile_width and tile_height must be multiples of {LATENT_STEP}")
    return even


def _as_many(pictures, most, name):
    if len(pictures) > most:
        warn_user(f"{name} has {len(pictures)} pictures, this layout has places for {most}; the others are left out")
    return pictures[:most]


def _part(number, length):
    return slice(number * length, (number + 1) * length)
