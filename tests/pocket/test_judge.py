"""The judge's verdicts, and the answers that it learns from."""

import pytest
import torch
from judge import ENOUGH, Verdict, answers, drawn, worn
from looks import chroma_of_things
from made_up import blobs
from world import Scenes, load_things


def verdict(labels):
    """A verdict that is sure of one label per cell."""
    cells = torch.nn.functional.one_hot(labels, 6).movedim(-1, 1).float() * 20 - 10
    return Verdict(cells.log_softmax(1), torch.zeros(len(labels), dtype=torch.long))


def test_a_thing_is_seen_where_enough_cells_show_it():
    labels = torch.zeros(1, 16, 16, dtype=torch.long)
    labels[0, :4, :4] = 3
    labels[0, 10, : ENOUGH - 1] = 5
    seen = verdict(labels).seen()
    assert seen.tolist() == [[False, False, True, False, False]]
    assert verdict(labels).place(2).tolist() == [[0.125, 0.125]]


def test_a_region_shows_the_thing_that_fills_it():
    labels = torch.zeros(1, 16, 16, dtype=torch.long)
    labels[0, :, :8], labels[0, :, 8:] = 1, 4
    region = torch.zeros(1, 16, 16)
    region[..., 9:] = 1
    assert verdict(labels).within(region).tolist() == [3]
    assert verdict(labels).within(1 - region).tolist() == [0]


def test_answers_name_the_thing_that_fills_a_cell():
    cover = torch.zeros(1, 2, 32, 32)
    cover[0, 0, :8, :8] = 1
    cover[0, 1, 8:16, 8:13] = 1
    cover[0, 1, 24:, :3] = 1
    empty = torch.zeros(1)
    scenes = Scenes(empty, torch.tensor([[7, 2]]), *[empty] * 9)
    cells, target = answers(scenes, cover)
    expected = torch.zeros(4, 4, dtype=torch.long)
    # a cell of which three eighths show a thing counts as empty
    expected[0, 0], expected[1, 1] = 8, 3
    assert torch.equal(target[0], expected)
    assert cells[0, :, 3, 0].tolist() == [0, 0.375]


def test_worn_pictures_stay_pictures():
    pictures = torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    out = worn(pictures, torch.Generator().manual_seed(1))
    assert out.min() >= 0 and out.max() <= 1
    same = (out == pictures).flatten(1).all(1)
    assert 16 < same.sum() < 48


@pytest.mark.slow
def test_it_learns_all_things_in_all_hues(tmp_path):
    things = load_things(blobs(tmp_path) / "things.npz")
    own = chroma_of_things(things)
    plain, pictures, _ = drawn(300, torch.Generator().manual_seed(0), things)
    other, made, _ = drawn(300, torch.Generator().manual_seed(0), things, own)
    assert torch.equal(plain.thing, other.thing) and not plain.turn.any() and not torch.equal(pictures, made)
    hues = (other.turn[:, 0] + own.angle()[other.thing[:, 0]])[other.thing[:, 0] >= 0]
    assert torch.polar(torch.ones(()), hues).mean().abs() < 0.2
