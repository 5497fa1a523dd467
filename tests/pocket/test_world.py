"""Pictures and captions of the pocket world say the same."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from fetch import square
from PIL import Image, ImageDraw
from things import COLOURS, HELD_OUT, KNOWN, THINGS, WORDS
from vocabulary import CLIP_IDS
from world import (
    GRID,
    KNOWN_INDICES,
    LAYOUTS,
    NO_PLACE,
    PLACE_FIRST,
    SIZES,
    captions,
    draw_scenes,
    load_things,
    render,
    settled,
)


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    """Discs of the words' own greys in place of the emoji: no network, and the middle tells which is which."""
    path = tmp_path_factory.mktemp("world") / "things.npz"
    discs = {}
    for i, word in enumerate(WORDS):
        disc = Image.new("RGBA", (128, 128))
        ImageDraw.Draw(disc).ellipse((1, 1, 126, 126), fill=(i + 100, i + 100, i + 100, 255))
        discs[word] = np.asarray(disc)
    np.savez_compressed(path, **discs)
    return load_things(path)


def scenes(count, seed=0, **kwargs):
    generator = torch.Generator().manual_seed(seed)
    return draw_scenes(count, generator, **kwargs), generator


def test_enough_things_and_some_held_out():
    assert len(KNOWN) >= 100 and len(HELD_OUT) >= 10 and not set(KNOWN) & set(HELD_OUT)
    assert len(set(THINGS.values())) == len(THINGS)
    assert set(KNOWN) | set(COLOURS) <= set(CLIP_IDS) and not set(HELD_OUT) & set(CLIP_IDS)


def test_held_out_things_are_never_drawn_or_named():
    drawn, generator = scenes(3000)
    shown = {WORDS[t] for t in drawn.thing.flatten().tolist() if t >= 0}
    assert shown == set(KNOWN)
    assert not set(HELD_OUT) & set(re.findall(r"\w+", " ".join(captions(drawn, generator))))


def test_the_same_seed_draws_the_same(things):
    one, two = (render(scenes(8, seed=5)[0], things)[0] for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, render(scenes(8, seed=6)[0], things)[0])


def test_captions_are_true():
    drawn, generator = scenes(2000)
    for i, text in enumerate(captions(drawn, generator)):
        assert set(text.replace(",", " ,").split()) <= set(CLIP_IDS), text
        shown = [WORDS[t] for t in drawn.thing[i].tolist() if t >= 0]
        words = set(re.findall(r"\w+", text))
        # orange is a colour only
        assert words & set(KNOWN) == set(shown), text
        colour = list(COLOURS)[drawn.colour[i]]
        assert words & set(COLOURS) <= {colour} and (shown or colour in words), text
        assert not re.search(r"\ba [aeio]|\ban [^aeiou]", text), text
        middle = {
            word: drawn.centre[i, k].tolist() for k, word in enumerate(WORDS[t] for t in drawn.thing[i].tolist()[:2])
        }
        places = re.findall(r"(\w+) (?:on|at) the (left|right|top|bottom)", text)
        if re.match("(on|at) the", text):
            first = re.findall(r"the (left|right|top|bottom) an? (?:small |big )?(\w+)", text)
            places = [(word, place) for place, word in first]
        for word, place in places:
            x, y = middle[word]
            assert {"left": x < 0.5, "right": x > 0.5, "top": y < 0.5, "bottom": y > 0.5}[place], text
        if "small" in words or "big" in words:
            assert ("big" in words) == (drawn.size[i, 0] > 0.5), text


def test_places_come_before_things_or_behind_them():
    drawn, generator = scenes(1000, shares=(0, 0, 1, 0))
    texts = captions(drawn, generator)
    first = sum(text.startswith("on the") for text in texts) / len(texts)
    none = sum("the left" not in text for text in texts) / len(texts)
    assert first == pytest.approx((1 - NO_PLACE) * PLACE_FIRST, abs=0.05)
    assert none == pytest.approx(NO_PLACE, abs=0.04)


def test_all_layouts_occur():
    drawn, _ = scenes(1000)
    assert drawn.layout.bincount(minlength=len(LAYOUTS)).min() > 5


def test_things_are_drawn_where_the_scene_says(things):
    drawn, _ = scenes(64, seed=1, shares=(0, 1, 0, 0))
    pictures, cover = render(drawn, things)
    ticks = (torch.arange(128) + 0.5) / 128
    total = cover[:, 0].sum((1, 2))
    x = (cover[:, 0] * ticks).sum((1, 2)) / total
    y = (cover[:, 0] * ticks[:, None]).sum((1, 2)) / total
    torch.testing.assert_close(torch.stack([x, y], 1), drawn.centre[:, 0], atol=0.01, rtol=0)
    torch.testing.assert_close(total / 128**2, torch.pi / 4 * (drawn.size[:, 0] * 126 / 128) ** 2, atol=0.01, rtol=0.03)
    at = (drawn.centre[:, 0] * 128).long()
    middle = pictures[torch.arange(64), :, at[:, 1], at[:, 0]]
    grey = (drawn.thing[:, 0] + 100) / 255 * drawn.light[:, 0]
    torch.testing.assert_close(middle, grey.clamp(0, 1)[:, None].expand(-1, 3), atol=0.02, rtol=0)


@pytest.mark.parametrize("side", [96, 128, 256])
def test_settled_things_stand_on_whole_cells_in_few_sizes(things, side):
    drawn, _ = scenes(500, seed=4)
    kept = settled(drawn, side)
    assert set(kept.size.flatten().tolist()) == set(torch.tensor(SIZES).tolist())
    assert (kept.size - drawn.size).abs().max() < 0.1
    assert (kept.centre * side / GRID).frac().abs().max() == 0 and (kept.centre - drawn.centre).abs().max() <= 4 / side
    assert torch.equal(kept.thing, drawn.thing) and torch.equal(kept.colour, drawn.colour)
    # nothing that was inside sticks out by more than the half cell
    beyond = (kept.centre - 0.5).abs() + kept.size[..., None] / 2 - 0.5
    assert beyond.max() <= GRID / side


def test_a_settled_thing_looks_the_same_wherever_it_stands(things):
    drawn, _ = scenes(1, seed=5, shares=(0, 1, 0, 0))
    drawn.size[:], drawn.slope[:] = 0.44, 0
    near, far = replace(drawn, centre=drawn.centre * 0 + 0.36), replace(drawn, centre=drawn.centre * 0 + 0.61)
    one, other = (render(settled(drawn), things)[0] for drawn in (near, far))
    assert not torch.equal(one, other)
    torch.testing.assert_close(one.roll((32, 32), (2, 3)), other, atol=1e-4, rtol=0)


def test_what_lies_in_front_hides_what_lies_behind(things):
    drawn, _ = scenes(64, seed=2, shares=(0, 0, 1, 0), things=KNOWN_INDICES[:5])
    drawn.centre[:, 1] = drawn.centre[:, 0]
    _, cover = render(drawn, things)
    assert cover.sum(1).max() <= 1 + 1e-5
    # the first thing lies in front
    assert (cover[:, 1] * (cover[:, 0] > 0.99)).max() < 0.02


def test_a_window_shows_a_part_of_the_picture(things):
    drawn, _ = scenes(4, seed=3)
    corner = torch.tensor([[0.25, 0.5]]).expand(4, 2)
    whole, _ = render(drawn, things)
    part, _ = render(drawn, things, side=64, corner=corner, extent=0.5)
    torch.testing.assert_close(part, whole[:, :, 64:, 32:96], atol=1e-4, rtol=0)


def test_a_render_is_cut_to_what_it_shows():
    render_of = Image.new("RGBA", (256, 256))
    ImageDraw.Draw(render_of).rectangle((40, 100, 139, 149), fill=(200, 10, 10, 255))
    cut = square(render_of)
    assert cut.shape == (128, 128, 4)
    rows, columns = np.nonzero(cut[..., 3] > 127)
    assert columns.min() == 0 and columns.max() == 127
    assert abs(rows.max() - rows.min() + 1 - 64) <= 2 and abs(rows.mean() - 63.5) < 1
    # empty pixels have no colour to bleed from
    assert (cut[rows, columns, 0] > 190).all()
