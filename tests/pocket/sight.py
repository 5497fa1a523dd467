"""What a picture shows, and in which hue each thing stands there; whether that is what was asked for."""

import math
from dataclasses import dataclass, replace

import torch
from looks import apart, chroma, standing
from things import COLOURS, WORDS

# pixels that must stand somewhere before they have a hue
FEWEST = 60
# how far a hue may lie from the one that was asked for, in radians: one in six does by chance
NEAR = math.pi / 6


@dataclass(frozen=True)
class Sighting:
    """A thing in a picture: its middle x, y in 0..1, and its hue in radians."""

    place: tuple
    hue: float


def backdrop(picture):
    """The colour (3,) that most of the rim of a picture (h, w, 3) has."""
    rim = (picture[:3], picture[-3:], picture[:, :3], picture[:, -3:])
    return torch.cat([part.flatten(0, 1) for part in rim]).median(0).values


def hue_in(picture, region=None):
    """The hue of all that stands in a picture (h, w, 3), or in a region (h, w) of it; NaN of nothing."""
    region = torch.ones(picture.shape[:2]) if region is None else region
    there = standing(picture, backdrop(picture), region)
    return chroma(picture[there]).mean().angle().item() if there.sum() >= FEWEST else math.nan


def sightings(picture, verdict, i=0):
    """{word: Sighting} of all that the judge sees in its i-th picture (h, w, 3)."""
    found, best = {}, verdict.cells[i].argmax(0)
    side = picture.shape[0] // best.shape[0]
    for thing in verdict.seen()[i].nonzero()[:, 0].tolist():
        region = (best == 1 + thing).repeat_interleave(side, 0).repeat_interleave(side, 1)
        found[WORDS[thing]] = Sighting(tuple(verdict.place(thing)[i].tolist()), hue_in(picture, region))
    return found


def hues_of(things, picture, found):
    """The hue of each of one or two things, in a picture (h, w, 3) of which the judge found these Sightings.

    One that it did not find counts as all that stands where it was asked for: anywhere, or in its half.
    """
    halves = torch.arange(picture.shape[1]).expand(picture.shape[:2]) * len(things) // picture.shape[1]
    return [found[word].hue if word in found else hue_in(picture, halves == k) for k, word in enumerate(things)]


def half_of(verdict, right):
    """The Verdict that sees nothing in the other half."""
    cells = verdict.cells.clone()
    middle = cells.shape[3] // 2
    other = cells[..., :middle] if right else cells[..., middle:]
    other[:, 0], other[:, 1:] = 0.0, -math.inf
    return replace(verdict, cells=cells)


def answers(question, picture, judge, hues):
    """{what: whether it is so} of a picture (1, h, w, 3) of things that shall have these hues, in radians.

    Hues alone would reward a halo around a thing, and a flood over the background. A thing that is asked for twice must
    stand in each half.
    """
    picture = picture.float()
    verdict = judge.look(picture.movedim(-1, 1))
    if len(set(question.things)) < len(question.things):
        sides = [sightings(picture[0], half_of(verdict, right)).get(question.things[0]) for right in (False, True)]
        things = placed = all(sides)
        there = [side.hue if side else math.nan for side in sides]
    else:
        found = sightings(picture[0], verdict)
        things = all(word in found for word in question.things)
        there = hues_of(question.things, picture[0], found)
        across = [found[word].place[0] for word in question.things] if things else []
        placed = things and across[0] < across[-1]
    said = {
        "things": things,
        "looks": all(apart(one, other) < NEAR for one, other in zip(there, hues, strict=True)),
        "background": list(COLOURS)[verdict.background[0]] == question.colour,
    }
    said["all of it"] = all(said.values())
    if len(question.things) == 2:
        said["in their places"] = placed
    return said


def resultant(hues):
    """How much hues (in radians) agree: 1 if they are one, 0 if they are evenly spread; those of nothing left out."""
    there = torch.tensor([hue for hue in hues if not math.isnan(hue)])
    return torch.polar(torch.ones(len(there)), there).mean().abs().item() if len(there) else math.nan
