"""A mask that is white in a box."""

import torch

from ...kernels.masks import box_mask
from ..host.messages import input_error


def mask_of_box(box, size, feather):
    """MASK (1, H, W): 1 in a box (x, y, width, height in 0..1) of a picture of a size (W, H), soft by `feather` inside.

    Raises ValueError for a box that covers no pixel.
    """
    x, y, width, height = box
    mask = box_mask(tuple(reversed(size)), (y, x, y + height, x + width), feather)
    if not torch.any(mask):
        raise input_error("the box covers no pixel; make width and height larger, or move it into the picture")
    return mask[None]
