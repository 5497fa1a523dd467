"""Panels with captions, as the nodes that show something draw them."""

import numpy as np
import torch
from PIL import Image, ImageFont

INK, PAPER = (235, 235, 235), (24, 24, 28)


def panel(size):
    """An empty PIL picture (width, height) to draw on."""
    return Image.new("RGB", size, PAPER)


def caption_font(size):
    """The font of captions."""
    return ImageFont.load_default(size=size)


def as_picture(tensor):
    """A PIL picture of a tensor (H, W, 3) in 0..1."""
    return Image.fromarray((tensor.clamp(0, 1) * 255).round().byte().numpy())


def as_images(panels):
    """IMAGE (n, H, W, 3) in 0..1 of n PIL pictures of one size."""
    return torch.from_numpy(np.stack([np.array(one) for one in panels])).float().div(255)
