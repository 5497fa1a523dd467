"""Text encoder and UNet are shown what captions say, in looks that no caption says."""

import lessons
import pytest
import torch
from free import held_out
from looks import chroma_of_things
from things import KNOWN, WORDS
from vocabulary import UNKNOWN, rows_of
from world import load_things, render


@pytest.fixture(scope="module")
def things(folder):
    return load_things(folder / "things.npz")


@pytest.mark.parametrize(("extent", "sizes"), [(0.5, {48, 56}), (0.75, {72, 88})])
def test_windows_show_the_thing_that_their_captions_name(things, extent, sizes):
    scenes, window, texts = lessons.windows(50, torch.Generator().manual_seed(0), chroma_of_things(things), extent)
    pictures, cover = render(scenes, things, **window)
    assert pictures.shape == (50, 3, 128 * extent, 128 * extent)
    assert set((scenes.size[:, 0] * 128).round().int().tolist()) == sizes
    assert cover[:, 0].mean((1, 2)).min() > 0.15 and not cover[:, 1].any()
    for text, thing in zip(texts, scenes.thing[:, 0].tolist(), strict=True):
        assert WORDS[thing] in text.split() and WORDS[thing] in KNOWN
        assert UNKNOWN not in rows_of(text)


@pytest.mark.parametrize("name", lessons.LESSONS)
def test_no_lesson_shows_a_held_out_look(things, name):
    own = chroma_of_things(things)
    scenes, _, _ = lessons.LESSONS[name].compose(500, torch.Generator().manual_seed(1), own)
    hues = scenes.turn + own.angle()[scenes.thing]
    # rounding may carry a hue over the edge of the arc, but not further
    assert not (held_out(scenes.thing, hues + 1e-4) & held_out(scenes.thing, hues - 1e-4)).any()
    assert hues[scenes.thing >= 0].std() > 1


def test_no_picture_shows_a_thing_twice(things):
    scenes, _, _ = lessons.whole(500, torch.Generator().manual_seed(2), chroma_of_things(things))
    both = scenes.thing[:, 1] >= 0
    assert both.float().mean() == pytest.approx(sum(lessons.WHOLE[2:]), abs=0.06)
    assert (scenes.thing[both, 0] != scenes.thing[both, 1]).all()


def test_placed_pictures_say_where_each_thing_stands(things):
    scenes, _, texts = lessons.placed(300, torch.Generator().manual_seed(3), chroma_of_things(things))
    ends = {"left": (0, False), "right": (0, True), "top": (1, False), "bottom": (1, True)}
    for i, text in enumerate(texts):
        shown = [t for t in scenes.thing[i].tolist() if t >= 0]
        named = [word for word in text.replace(",", "").split() if word in ends]
        assert len(named) == len(shown), text
        if len(shown) == 1:
            axis, far = ends[named[0]]
            offset = scenes.centre[i, 0] - 0.5
            assert (offset[axis] > 0) == far and abs(offset[axis]) > 1.5 * abs(offset[1 - axis]), text


def test_all_lessons_are_given():
    assert set(lessons.CYCLE) == set(lessons.LESSONS)
