"""Whose look a thing has, told from sample pictures whose hues are turned."""

import math

import binding
import judge
import pytest
import torch
from looks import chroma_in, standing, turned
from pictures import read
from questions import Question
from things import WORDS

ANGLES = [2 * math.pi / 3, -2 * math.pi / 3]


@pytest.fixture(scope="module", params=[1, 14])
def pair(request):
    """(Question, picture (1, h, w, 3), the things' own chromas) of two things side by side in their own colours."""
    pictures, shown = read()
    picture, said = pictures[request.param].movedim(0, -1), shown[request.param]
    own = torch.ones(len(WORDS), dtype=torch.complex64)
    for k, word in enumerate(said["things"]):
        own[WORDS.index(word)] = chroma_in(picture, picture[:2, -2:].mean((0, 1)), half(picture, k))
    return Question(tuple(said["things"]), said["colour"], 0), picture[None], own


def half(picture, k):
    region = torch.zeros(picture.shape[:2])
    region[:, k * 64 : k * 64 + 64] = 1
    return region


def with_hues(picture, angles):
    """What stands in each half with its hues turned."""
    picture = picture.clone()
    for k, angle in enumerate(angles):
        there = standing(picture[0], picture[0, :2, -2:].mean((0, 1)), half(picture[0], k))
        opaque = torch.cat([picture, torch.ones_like(picture[..., :1])], -1).movedim(-1, 1)
        other = turned(opaque, torch.tensor([angle]))[:, :3].movedim(1, -1)
        picture = torch.where(there[..., None], other, picture)
    return picture


@pytest.mark.parametrize("angles", [(0.0, 0.0), ANGLES])
def test_things_are_told_apart_in_any_hue(pair, angles):
    question, picture, own = pair
    made = with_hues(picture, angles)
    sees = judge.load()
    assert binding.order(question.things, made, sees, own) == 0
    assert binding.order(question.things, made.flip(2), sees, own) == 1
    assert binding.order(question.things[::-1], made, sees, own) == 1


@pytest.mark.parametrize("swapped", [False, True])
def test_each_thing_has_its_own_look_wherever_it_stands(pair, swapped):
    question, picture, own = pair
    made = with_hues(picture, ANGLES)
    found = binding.answers(question, made.flip(2) if swapped else made, judge.load(), ANGLES, own)
    assert found == {
        "both have their own look": True,
        "one has the other's look": False,
        "in their places": not swapped,
        "background": True,
    }


def test_looks_that_went_to_the_other_thing_are_seen(pair):
    question, picture, own = pair
    found = binding.answers(question, with_hues(picture, ANGLES[::-1]), judge.load(), ANGLES, own)
    assert found["one has the other's look"] and not found["both have their own look"]


def test_nothing_has_no_look(pair):
    question, picture, own = pair
    flat = picture[:, :1, -1:].expand_as(picture)
    found = binding.answers(question, flat, judge.load(), [0.0, 0.0], own)
    assert not found["both have their own look"] and not found["one has the other's look"] and found["background"]
