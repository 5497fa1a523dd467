"""Hues are turned as said, and told from pictures."""

import math
from dataclasses import replace

import pytest
import torch
from looks import apart, chroma, chroma_in, turned
from made_up import blobs
from things import WORDS
from world import draw_scenes, load_things, portrait, render


def test_a_turn_multiplies_chroma_and_keeps_brightness():
    # pale enough that no colour leaves the cube
    colours = torch.rand(6, 3, 4, 4) * 0.2 + 0.4
    angle = torch.linspace(0, 6, 6)
    made = turned(torch.cat([colours, torch.ones(6, 1, 4, 4)], 1), angle)[:, :3]
    before, after = (chroma(c.movedim(1, -1)) for c in (colours, made))
    expected = before * torch.polar(torch.ones(6), angle)[:, None, None]
    torch.testing.assert_close(after, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(made.sum(1), colours.sum(1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("turns", [1, 2])
def test_a_third_of_a_turn_makes_red_green_and_blue(turns):
    red = torch.tensor([0.5, 0, 0, 0.7])[None, :, None, None]
    made = turned(red, torch.tensor([turns * 2 * math.pi / 3]))[0, :, 0, 0]
    expected = torch.zeros(4)
    expected[turns], expected[3] = 0.5, 0.7
    torch.testing.assert_close(made, expected, atol=1e-6, rtol=0)


def test_colours_stay_within_what_covers():
    colours = torch.rand(8, 4, 4, 4)
    colours[:, :3] *= colours[:, 3:]
    made = turned(colours, torch.rand(8) * 7)
    assert (made[:, :3] >= 0).all() and (made[:, :3] <= made[:, 3:]).all() and torch.equal(made[:, 3], colours[:, 3])


def test_the_turn_of_one_of_two_things_is_told_from_the_picture(tmp_path):
    things = load_things(blobs(tmp_path) / "things.npz")
    scenes = draw_scenes(1, torch.Generator().manual_seed(3), shares=(0, 0, 1, 0))
    scenes.base[:], scenes.slope[:], scenes.light[:] = 0.5, 0, 1
    grey = torch.full((3,), 0.5)
    other = replace(scenes, turn=torch.tensor([[0.8, 0.0]]))
    found = []
    for scene in (scenes, other):
        picture, cover = render(scene, things)
        found.append([chroma_in(picture[0].movedim(0, -1), grey, cover[0, k]).angle().item() for k in (0, 1)])
    assert apart(found[1][0] - found[0][0], 0.8) < 0.3
    assert apart(found[1][1], found[0][1]) < 0.05


def test_nothing_has_no_chroma():
    flat = torch.full((8, 8, 3), 0.4)
    assert chroma_in(flat, flat[0, 0], torch.ones(8, 8)) == 0


def test_a_portrait_may_be_turned(tmp_path):
    things = load_things(blobs(tmp_path) / "things.npz")
    plain, mask, _ = portrait(WORDS[0], things, seed=1)
    other, same, _ = portrait(WORDS[0], things, seed=1, turn=1.5)
    assert torch.equal(mask, same) and not torch.equal(plain, other)
    torch.testing.assert_close(plain[:, :8], other[:, :8])


@pytest.mark.parametrize(("one", "other", "expected"), [(0, 1, 1), (0.1, 6.2, 0.1831853), (-3, 3, 0.2831853)])
def test_angles_are_compared_around_the_circle(one, other, expected):
    assert apart(one, other) == pytest.approx(expected, abs=1e-5)
