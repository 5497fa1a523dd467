"""Maps over the result as pictures: one panel per subject, coloured from 0 to 1, with a caption under it."""

import numpy as np
import torch
from PIL import Image, ImageDraw

from ..host.panels import as_images, panel, write

# Dark to bright in even steps of lightness, from 0 to 1.
RAMP = np.array([[13, 8, 66], [101, 13, 135], [188, 55, 84], [243, 131, 30], [250, 246, 130]], dtype=np.float32)
OPACITY = 0.65
_CAPTION, FONT_SIZE = 30, 16


def heat_maps(maps, size, images=None):
    """IMAGE (b·r, H + caption, W, 3): per image of the batch one panel per subject.

    maps: (words, (b, h, w) in 0..1) per subject; size (H, W) of a panel where no images (b, H, W, 3) are given to draw
    over. One image serves a whole batch of maps.
    """
    panels = []
    for i in range(len(maps[0][1])):
        under = None if images is None else images[i if len(images) > 1 else 0]
        height, width = size if under is None else under.shape[:2]
        for number, (words, values) in enumerate(maps, 1):
            panels.append(_panel(values[i], words or f"reference {number}", (height, width), under))
    return as_images(panels)


def _panel(values, words, size, under):
    height, width = size
    smooth = torch.nn.functional.interpolate(values[None, None].float(), size=size, mode="bilinear")[0, 0].numpy()
    heat = _coloured(smooth.clip(0, 1))
    if under is not None:
        grey = under[..., :3].float().mean(-1, keepdim=True).cpu().numpy().clip(0, 1) * 255
        heat = OPACITY * heat + (1 - OPACITY) * grey
    sheet = panel((width, height + _CAPTION))
    sheet.paste(Image.fromarray(heat.round().astype(np.uint8)))
    low, high = (round(100 * float(edge)) for edge in (values.min(), values.max()))
    write(ImageDraw.Draw(sheet), (8, height + 6), f"{words}: {low} to {high} %", FONT_SIZE)
    return sheet


def _coloured(values):
    steps = np.linspace(0, 1, len(RAMP))
    return np.stack([np.interp(values, steps, RAMP[:, channel]) for channel in range(3)], -1)
