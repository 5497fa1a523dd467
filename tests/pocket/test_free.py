"""Looks are free, but for those that are held out, and pale things take part."""

import math

import pytest
import torch
from free import ARC, DIFFERENT, EVERY, FAR, draw_hues, held_out, in_any_hues, in_hues, with_free_looks
from looks import apart, chroma, chroma_of_things
from made_up import blobs
from things import COLOURS, HELD_OUT, KNOWN, WORDS
from tints import PALE, pale, tinted
from world import captions, draw_scenes, load_things, render


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    """Blobs, the last of them white and the first black."""
    levels = load_things(blobs(tmp_path_factory.mktemp("free")) / "things.npz")
    for level in levels:
        level[-1, :3], level[0, :3] = level[-1, 3:], 0
    return levels


@pytest.fixture(scope="module")
def drawn():
    generator = torch.Generator().manual_seed(0)
    scenes = draw_scenes(4000, generator)
    return scenes.thing, draw_hues(scenes.thing, generator)


def test_all_hues_are_drawn_alike(drawn):
    thing, hues = drawn
    of_others = hues[(thing % EVERY != 0) & (thing >= 0)]
    counts = torch.histc(of_others, 12, 0, 2 * math.pi)
    assert counts.min() > 0.8 * counts.mean() and counts.max() < 1.2 * counts.mean()


def test_the_hues_of_pairs_are_drawn_apart(drawn):
    thing, hues = drawn
    far = (apart(hues[:, 0], hues[:, 1]) >= FAR)[thing[:, 1] >= 0].float().mean()
    assert far == pytest.approx(DIFFERENT + (1 - DIFFERENT) / 2, abs=0.03)


def test_held_out_looks_are_never_drawn(drawn):
    thing, hues = drawn
    inside = (hues >= ARC[0]) & (hues < ARC[1])
    assert not (inside & (thing % EVERY == 0)).any()
    # things beside them are shown in these hues
    assert (inside & (thing % EVERY == 1)).sum() > 100
    assert held_out(torch.tensor(0), torch.tensor(ARC[0] + 0.1 - 2 * math.pi))
    assert not held_out(torch.tensor(WORDS.index(list(HELD_OUT)[0])), torch.tensor(ARC[0] + 0.1))


def test_any_hues_are_any():
    scenes = draw_scenes(2000, torch.Generator().manual_seed(1))
    own = torch.ones(len(WORDS), dtype=torch.complex64)
    turn = in_any_hues(scenes, own, torch.Generator().manual_seed(2)).turn[:, 0][scenes.thing[:, 0] % EVERY == 0]
    assert ((turn >= ARC[0]) & (turn < ARC[1])).float().mean() == pytest.approx(1 / 6, abs=0.06)


def test_things_are_drawn_in_their_hues(things):
    things = tinted(things)
    own = chroma_of_things(things)
    scenes = draw_scenes(64, torch.Generator().manual_seed(3), things=(0, 5, len(WORDS) - 1), shares=(0, 1, 0, 0))
    scenes.light[:] = 1
    hues = torch.linspace(0, 6, 128).view(64, 2)
    pictures, cover = render(in_hues(scenes, hues, own), things)
    for picture, there, hue in zip(pictures.movedim(1, -1), cover[:, 0] > 0.99, hues[:, 0], strict=True):
        assert apart(chroma(picture[there]).mean().angle(), hue) < 0.2


def test_pale_things_get_a_hue_and_others_stay(things):
    own, made = chroma_of_things(things), tinted(things)
    which = pale(own)
    assert which[0] and which[-1] and not which.all()
    after = chroma_of_things(made)
    assert (after[which].abs() > PALE).all() and apart(after[which].angle(), own[which].angle()).max() < 1e-3
    for before, level in zip(things, made, strict=True):
        assert torch.equal(before[~which], level[~which])
        colours, cover = level.split((3, 1), 1)
        assert (colours >= 0).all() and (colours <= cover).all() and torch.equal(cover, before[:, 3:])


def test_a_turn_cuts_nothing_off_what_was_white_or_black(things):
    made = tinted(things)
    own = chroma_of_things(made)
    scenes = draw_scenes(24, torch.Generator().manual_seed(4), things=(0, len(WORDS) - 1), shares=(0, 1, 0, 0))
    scenes.light[:] = 1
    pictures, cover = render(in_hues(scenes, torch.linspace(0, 6.2, 24)[:, None].expand(24, 2), own), made)
    for picture, there in zip(pictures.movedim(1, -1), cover[:, 0] > 0.99, strict=True):
        # all colours of a thing keep their brightness and get the same chroma
        assert picture[there].mean(-1).std() < 0.01 and chroma(picture[there]).abs().std() < 0.01


def test_no_caption_names_a_look(drawn):
    generator = torch.Generator().manual_seed(5)
    scenes = with_free_looks(draw_scenes(300, generator), torch.ones(len(WORDS), dtype=torch.complex64), generator)
    assert scenes.turn.any()
    for text, colour in zip(captions(scenes, generator), scenes.colour.tolist(), strict=True):
        assert set(text.replace(",", "").split()) & set(COLOURS) <= {list(COLOURS)[colour]}


def test_some_known_things_have_held_out_looks():
    known = torch.arange(len(KNOWN))
    assert 0.2 < held_out(known, torch.full(known.shape, ARC[0])).float().mean() < 0.3
