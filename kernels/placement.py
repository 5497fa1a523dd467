"""A picture and its masks -> a place on a square canvas: shrunk, cropped, moved (Mix-of-Show, arXiv 2305.18292).

What is drawn comes from an object with share() in 0..1 and integer(most) in 0..most, in the published order.
"""

from dataclasses import dataclass

import torch

from .masks import nearest_resize

# How often a picture is cropped, and how small `fill` may make it.
CROPPED, SMALLEST = 0.5, 0.75
# Pillow's unit of weights.
_ONE = 1 << 22


@dataclass(frozen=True, eq=False)
class Placed:
    """A picture on its canvas: pixels (3, S, S) in 0..1, black beside it; its masks (n, S, S), 0 beside it.

    shown (S, S): 1 where the picture lies; original (H, W): its size before; corner (y, x): what was taken off there.
    """

    pixels: torch.Tensor
    masks: torch.Tensor
    shown: torch.Tensor
    original: tuple[int, int]
    corner: tuple[int, int]


def shrunk_to_side(pixels, masks, side):
    """(pixels (3, h, w), masks (n, h, w)) with a short side of so many pixels: the first step of every placement."""
    sheet = _shrunk(torch.cat([pixels.float(), masks.to(pixels)]), _by_short_side(pixels.shape[-2:], side))
    return sheet[:3], sheet[3:]


def place_person(pixels, masks, side, draws):
    """Half of the pictures are cropped, high ones from their top, where heads are; all are fitted and moved.

    pixels (3, H, W) in 0..1; masks (n, H, W) in 0..1.
    """
    sheet = torch.cat(shrunk_to_side(pixels, masks, side))
    corner = (0, 0)
    if draws.share() < CROPPED:
        height, width = sheet.shape[-2:]
        if height > width:
            sheet = sheet[:, : width + draws.integer(height - width)]
        else:
            sheet, corner = _window(sheet, side, draws)
    return _on_canvas(_fitted(sheet, side), side, draws, pixels.shape[-2:], corner)


def place_filling(pixels, masks, side, draws):
    """Half of the pictures are cropped to the canvas, the others fitted; then all are made somewhat smaller and moved.

    As `place_person`.
    """
    sheet = torch.cat(shrunk_to_side(pixels, masks, side))
    corner = (0, 0)
    if draws.share() < CROPPED:
        sheet, corner = _window(sheet, side, draws)
    else:
        sheet = _fitted(sheet, side)
    ratio = SMALLEST + (1 - SMALLEST) * draws.share()
    smaller = tuple(max(1, int(ratio * length)) for length in sheet.shape[-2:])
    sheet = torch.cat([_shrunk(sheet[:3], smaller), nearest_resize(sheet[3:], smaller)])
    return _on_canvas(sheet, side, draws, pixels.shape[-2:], corner)


def place_cropped(pixels, masks, side, draws):
    """The short side fills the canvas, a random part of the long one is shown. As `place_person`."""
    sheet = torch.cat(shrunk_to_side(pixels, masks, side))
    sheet, corner = _window(sheet, side, draws)
    return Placed(sheet[:3], sheet[3:], torch.ones(side, side), tuple(pixels.shape[-2:]), corner)


def flipped(placed):
    """The same picture and masks, left for right."""
    pixels, masks, shown = (t.flip(-1) for t in (placed.pixels, placed.masks, placed.shown))
    return Placed(pixels, masks, shown, placed.original, placed.corner)


def middle_mean(masks, step=8):
    """The mean of the two by two middle pixels of each cell of step x step: (..., H, W) -> (..., H / step, W / step).

    What OpenCV's bilinear resize gives there, of masks of 8 bits.
    """
    masks, first = (255 * masks).round(), step // 2 - 1
    columns = (masks[..., first::step] + masks[..., first + 1 :: step]) / 2
    return (columns[..., first::step, :] + columns[..., first + 1 :: step, :]) / 510


def _shrunk(sheet, size):
    """As Pillow's bilinear resize has it, to the last of the 8 bits: columns first, then rows, in whole numbers."""
    levels = (255 * sheet.double()).round()
    for axis, count in ((-1, size[1]), (-2, size[0])):
        if levels.shape[axis] != count:
            moved = levels.movedim(axis, -1) @ _weights(levels.shape[axis], count).to(levels).mT
            levels = ((moved + _ONE / 2) / _ONE).floor().clamp(0, 255).movedim(-1, axis)
    return (levels / 255).float()


def _weights(length, count):
    """(count, length): the share of each of `length` pixels in each of `count`, in whole numbers; _ONE is all."""
    scale = length / count
    reach = max(1.0, scale)
    centre = (torch.arange(count, dtype=torch.float64)[:, None] + 0.5) * scale
    pixel = torch.arange(length, dtype=torch.float64)[None]
    # the pixels that count at all: their edges are rounded down from here
    inside = (pixel >= (centre - reach + 0.5).floor()) & (pixel < (centre + reach + 0.5).floor())
    share = (1 - ((pixel + 0.5 - centre) / reach).abs()).clamp(min=0) * inside
    return (share / share.sum(1, keepdim=True) * _ONE + 0.5).floor()


def _by_short_side(size, short, longest=None):
    """(H, W) with a short side of so many pixels, and no side longer than `longest`; rounded down as published."""
    least = min(size)
    other = int(short * max(size) / least)
    if longest is not None and other > longest:
        short, other = int(longest * short / other), longest
    short = max(1, short)
    return (short, other) if size[0] <= size[1] else (other, short)


def _fitted(sheet, side):
    """As large as it may be on the canvas; a square is a pixel smaller, as published."""
    return _shrunk(sheet, _by_short_side(sheet.shape[-2:], side - 1, side))


def _window(sheet, side, draws):
    """(a random part of side x side, its corner (y, x))"""
    height, width = sheet.shape[-2:]
    left, top = draws.integer(width - side), draws.integer(height - side)
    return sheet[:, top : top + side, left : left + side], (top, left)


def _on_canvas(sheet, side, draws, original, corner):
    height, width = sheet.shape[-2:]
    top, left = draws.integer(side - height), draws.integer(side - width)
    canvas = torch.zeros(len(sheet), side, side, device=sheet.device)
    canvas[:, top : top + height, left : left + width] = sheet
    shown = torch.zeros(side, side, device=sheet.device)
    shown[top : top + height, left : left + width] = 1
    return Placed(canvas[:3], canvas[3:], shown, tuple(original), corner)
