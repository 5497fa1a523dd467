"""Looks that no word names: the hues of a thing turned by an angle, and by what angle those in a picture are turned.

A colour (r, g, b) has the chroma r + g w + b w^2 with w = e^(2 pi i / 3): its angle is the hue, its length how
colourful it is. Turning hues is a rotation about the grey axis, and multiplies chroma by e^(i angle).
"""

import math

import torch

# hues are turned by whole multiples of a full turn / TURNS
TURNS = 12
TURN = 2 * math.pi / TURNS
# the length of a thing's mean chroma from which on a turn of its hues can be told
COLOURFUL = 0.15
# how far a colour lies from the background's before it counts as the thing's
APART = 0.12


def turned(colours, angle):
    """Premultiplied colours (b, 4, h, w) with hues turned by angle (b,) radians; brightness stays."""
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None] / math.sqrt(3)
    across = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]], device=angle.device)
    matrix = cos * torch.eye(3, device=angle.device) + (1 - cos) / 3 + sin * across
    rgb = torch.einsum("bij,bjhw->bihw", matrix, colours[:, :3]).clamp_min(0).minimum(colours[:, 3:])
    return torch.cat([rgb, colours[:, 3:]], 1)


def chroma(colours):
    """The complex chroma (...) of colours (..., 3)."""
    third = 2 * math.pi / 3
    real = colours @ colours.new_tensor([1, math.cos(third), math.cos(2 * third)])
    return torch.complex(real, colours @ colours.new_tensor([0, math.sin(third), math.sin(2 * third)]))


def chroma_of_things(things):
    """(things,) mean chroma of each thing of load_things(), where it is opaque."""
    small = things[-1]
    colours = small[:, :3].sum((2, 3)) / small[:, 3:].sum((2, 3))
    return chroma(colours)


def standing(picture, background, region):
    """Where (h, w) within a region something stands on a background (3,) of a picture (h, w, 3)."""
    return (region > 0.5) & ((picture - background).square().sum(-1).sqrt() > APART)


def chroma_in(picture, background, region):
    """The mean chroma of what lies on a background (3,) within region (h, w) of a picture (h, w, 3); 0 of nothing."""
    there = standing(picture, background, region)
    return chroma(picture[there]).mean() if there.any() else torch.zeros((), dtype=torch.complex64)


def apart(one, other):
    """How far two angles lie apart, 0..pi radians."""
    return abs((one - other + math.pi) % (2 * math.pi) - math.pi)
