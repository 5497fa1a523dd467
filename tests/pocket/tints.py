"""Things without a colour of their own, tinted, so that a turn of their hues shows on them as on the others.

The tint is one map of all colours c of a thing: LIFT + KEEP c + a vector of the thing's own mean hue. White stays pale,
black stays dark, and no grey leaves the cube at any turn.
"""

import math

import torch
from fetch import gather
from looks import chroma_of_things
from world import load_things

# the length of a thing's mean chroma below which it is tinted
PALE = 0.18
# what a tint does to colours, and the length of the chroma that it adds
LIFT, KEEP, ADDED = 0.2, 0.6, 0.3


def pale(own):
    """(things,) which things of these mean chromas, as looks.chroma_of_things() gives them, are tinted."""
    return own.abs() < PALE


def tinted(things):
    """The levels of world.load_things() with the pale things tinted."""
    own = chroma_of_things(things)
    which = pale(own)
    shift = (LIFT + _tint(own[which].angle()))[:, :, None, None]
    levels = [level.clone() for level in things]
    for level in levels:
        colours, cover = level[which].split((3, 1), 1)
        level[which] = torch.cat([(KEEP * colours + shift * cover).clamp_min(0).minimum(cover), cover], 1)
    return levels


def tinted_world(cache, device="cpu"):
    """(tinted(world.load_things()), the chroma of each thing, on the CPU), from what fetch.py keeps in a folder."""
    things = tinted(load_things(gather(cache), device))
    return things, chroma_of_things(things).cpu()


def _tint(hue):
    """(n, 3) the colours of no brightness that have chromas of the length ADDED at hues (n,)."""
    thirds = torch.arange(3, device=hue.device) * 2 * math.pi / 3
    return 2 / 3 * ADDED * (hue[:, None] - thirds).cos()
