"""The looks that captions leave open: the hue of each thing, drawn anew for each picture.

A hue is the angle of a thing's mean chroma, so that two things of one hue look alike whatever colours they have of
their own. Captions know nothing of it.
"""

import math
from dataclasses import replace

import torch
from looks import apart
from things import KNOWN

FULL = 2 * math.pi
# share of pairs whose hues are made to differ by FAR radians or more; of the others half do so by chance
DIFFERENT, FAR = 0.5, math.pi / 2
# One known thing of so many is never shown in the hues of an arc, from cyan to blue: held-out looks of known things.
EVERY, ARC = 4, (math.pi, 4 * math.pi / 3)


def held_out(thing, hue):
    """Whether things with these indices in WORDS are never shown in these hues."""
    known = (thing >= 0) & (thing < len(KNOWN)) & (thing % EVERY == 0)
    return known & (hue % FULL >= ARC[0]) & (hue % FULL < ARC[1])


def draw_hues(thing, generator):
    """(b, 2) random hues of pairs of things with these indices, none of them held out."""
    differ = torch.rand(len(thing), generator=generator) < DIFFERENT
    hues = torch.rand(len(thing), 2, generator=generator) * FULL
    while True:
        alike = differ & (apart(hues[:, 0], hues[:, 1]) < FAR)
        again = alike | held_out(thing, hues).any(1)
        if not again.any():
            return hues
        hues[again] = torch.rand(int(again.sum()), 2, generator=generator) * FULL


def in_hues(scenes, hues, own):
    """The Scenes with things in these hues (b, 2); `own` are their chromas, as looks.chroma_of_things() gives them."""
    return replace(scenes, turn=torch.where(scenes.thing >= 0, hues - own.angle()[scenes.thing], 0.0) % FULL)


def with_free_looks(scenes, own, generator):
    """The Scenes with things in random hues."""
    return in_hues(scenes, draw_hues(scenes.thing, generator), own)


def in_any_hues(scenes, own, generator):
    """The Scenes with things in any hues, held out or not."""
    return in_hues(scenes, torch.rand(len(scenes), 2, generator=generator) * FULL, own)
