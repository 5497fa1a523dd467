"""Parts of pictures and masks: the box of what a mask keeps, the pixels of a frame, a picture on a white square."""

import torch
import torch.nn.functional as F


def bounds_of(kept):
    """(rows, columns), slices, of the smallest box around what is True in a mask (H, W) that keeps something."""
    return tuple(_extent(kept.any(axis)) for axis in (1, 0))


def _extent(filled):
    found = torch.nonzero(filled).flatten()
    return slice(int(found[0]), int(found[-1]) + 1)


def part_in_frame(frame, size):
    """(rows, columns), slices, of a frame (top, left, bottom, right) in 0..1 of a picture of a size (H, W), rounded."""
    top, left, bottom, right = (round(edge * side) for edge, side in zip(frame, (*size, *size), strict=True))
    return slice(top, bottom), slice(left, right)


def on_white_square(images):
    """The pictures (b, H, W, 3) in the middle of white squares (b, S, S, 3) of their longer side."""
    height, width = images.shape[1:3]
    down, across = (max(height, width) - side for side in (height, width))
    top, left = down // 2, across // 2
    return F.pad(images, (0, 0, left, across - left, top, down - top), value=1.0)
