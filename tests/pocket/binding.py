"""Whose look has each of two things? Told from a picture that shows them side by side, in either order."""

import math

import torch
from looks import apart, chroma_in, standing, turned
from questions import seen
from things import WORDS

# how far hues may lie from a look that counts as a thing's own, in radians
NEAR = math.pi / 4


def order(words, picture, judge, own):
    """0 if the first of two things stands on the left of a picture (1, h, w, 3), 1 if on the right.

    The judge knows things in their own colours alone, so what stands in a half is shown to it as it would look if it
    were the one thing or the other, its hues turned back.
    """
    first, second = ([_likeness(word, half, picture, judge, own) for half in (0, 1)] for word in words)
    return int(first[0] + second[1] < first[1] + second[0])


def _likeness(word, half, picture, judge, own):
    """How much of a half (0: left) the judge takes for a thing when its mean hue is that of the thing."""
    turn, there = _turn(word, half, picture, own)
    pixels = picture.float().movedim(-1, 1)
    opaque = torch.cat([pixels, torch.ones_like(pixels[:, :1])], 1)
    back = torch.where(there, turned(opaque, -turn[None])[:, :3], pixels)
    return judge.look(back).cells[0, 1 + WORDS.index(word)].exp().tensor_split(2, 1)[half].sum()


def _turn(word, half, picture, own):
    """(angle by which the hues of what stands in a half are turned if it is this thing, where (h, w) it stands)"""
    background, middle = picture[0, :2, :2].mean((0, 1)), picture.shape[2] // 2
    region = torch.zeros(picture.shape[1:3])
    region[:, half * middle : (half + 1) * middle] = 1
    there = standing(picture[0].float(), background, region)
    found = chroma_in(picture[0].float(), background, region)
    return (found / own[WORDS.index(word)]).angle(), there


def answers(question, picture, judge, angles, own):
    """{what: whether it is so} of a picture of two things whose hues shall be turned by these angles.

    `own` are the things' chromas before the turn, as looks.chroma_of_things() gives them. What is not there has no
    look.
    """
    ((_, colour, _),) = seen(picture, judge)
    swapped = order(question.things, picture, judge, own)
    mine, other = [], []
    for k, word in enumerate(question.things):
        turn, there = _turn(word, int(k != swapped), picture, own)
        mine.append(apart(turn.item(), angles[k]) if there.any() else math.inf)
        other.append(apart(turn.item(), angles[1 - k]) if there.any() else math.inf)
    return {
        "both have their own look": max(mine) < NEAR,
        "one has the other's look": any(theirs < its for its, theirs in zip(mine, other, strict=True)),
        "in their places": not swapped,
        "background": colour == question.colour,
    }
