"""What became of a noise, as a picture for its node: where it grew and where it shrank, and by how much in all."""

import torch
import torch.nn.functional as F
from PIL import ImageDraw

from ..host.node_pictures import show_picture
from ..host.panels import as_picture, panel, write

_SIDE, _LINE = 256, 24


def show_change(noise, golden, node):
    """Shows on a node what `golden` changes in `noise`, both (b, 4, h, w); of a batch the first picture.

    Noise of other axes, of video or sound, is no picture: nothing is shown.
    """
    if node is not None and noise.ndim == 4:
        show_picture(picture_of_change(noise, golden), node)


def picture_of_change(noise, golden):
    """A PIL picture of the mean change over the channels: red is more, blue is less, the strongest at full colour."""
    noise, golden = (t[:1].float().cpu() for t in (noise, golden))
    change = (golden - noise).mean(1, keepdim=True)
    share = float((golden - noise).norm() / noise.norm().clamp(min=1e-12))
    scale = _SIDE / max(change.shape[-2:])
    size = [max(1, round(side * scale)) for side in change.shape[-2:]]
    strength = F.interpolate(change / change.abs().max().clamp(min=1e-12), size=size, mode="nearest")[0, 0]
    made = panel((max(size[1], _SIDE), size[0] + _LINE))
    made.paste(as_picture(_red_and_blue(strength)), (0, 0))
    write(ImageDraw.Draw(made), (4, size[0] + 4), f"{100 * share:.1f} % of the noise changed", 14)
    return made


def _red_and_blue(values):
    """(h, w, 3) in 0..1 of (h, w) in -1..1: red above 0, blue below, white at 0."""
    more, less = values.clamp(min=0), (-values).clamp(min=0)
    return torch.stack([1 - less, 1 - more - less, 1 - more], -1)
