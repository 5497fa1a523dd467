"""Panels with captions, as the nodes that show something draw them."""

import numpy as np
import torch
from PIL import Image, ImageFont

from .messages import plain

INK, PAPER = (235, 235, 235), (24, 24, 28)


def panel(size):
    """An empty PIL picture (width, height) to draw on."""
    return Image.new("RGB", size, PAPER)


def write(draw, place, text, size, colour=INK):
    """Writes one line of text, which may come from anywhere, and returns its width in pixels.

    draw: PIL's of a panel; place: (left, top); size: of the font.
    """
    text, font = plain(text), ImageFont.load_default(size=size)
    draw.text(place, text, font=font, fill=colour)
    return round(draw.textlength(text, font=font))


def as_picture(tensor):
    """A PIL picture of a tensor (H, W, 3) in 0..1."""
    return Image.fromarray((tensor.clamp(0, 1) * 255).round().byte().cpu().numpy())


def as_images(panels):
    """IMAGE (n, H, W, 3) in 0..1 of n PIL pictures of one size."""
    return torch.from_numpy(np.stack([np.array(one) for one in panels])).float().div(255)
