"""Picture files of the pack as the host's IMAGE and MASK."""

import numpy as np
import torch
from PIL import Image


def picture_file(path):
    """An IMAGE (1, H, W, 3) in 0..1."""
    with Image.open(path) as picture:
        return torch.from_numpy(np.array(picture.convert("RGB"))).float().div(255)[None]


def mask_file(path):
    """A MASK (1, H, W) in 0..1, white as in the file."""
    with Image.open(path) as picture:
        return torch.from_numpy(np.array(picture.convert("L"))).float().div(255)[None]
