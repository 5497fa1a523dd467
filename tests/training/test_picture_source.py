"""Training pictures as latents in their places."""

from dataclasses import replace

import pytest
import torch

from pack.kernels.masks import nearest_resize
from pack.nodes.training import picture_source as module
from pack.nodes.training.methods import METHODS
from pack.nodes.training.picture_source import sources_of
from pack.nodes.training.pictures_wire import Subject, TrainingPictures, TrainingScene
from pack.nodes.training.quarter_masks import seen_at_quarter

SETTINGS = replace(METHODS["parts"], placements=1, placement="crop", flip=False)


def encoded(pixels):
    return torch.zeros(4, *(side // 8 for side in pixels.shape[1:3]))


def test_pictures_of_one_subject_in_several_sizes_are_one_concept():
    subjects = [Subject(torch.rand(count, 64, 64, 3), word) for word, count in (("<a>", 2), ("<b>", 1), ("<a>", 1))]
    words = (("<a>",), ("<b>",), ("<a>",))
    found = sources_of(TrainingPictures(tuple(subjects)), words, encoded, 64, SETTINGS, 0)
    assert [(one.concept, one.number) for one in found] == [(0, 0), (0, 1), (1, 0), (0, 0)]


def box(top, bottom, left, right, side=128):
    mask = torch.zeros(1, side, side)
    mask[:, top:bottom, left:right] = 1
    return mask


def test_a_mask_that_no_cell_sees_shows_in_its_brightest_one():
    masks = torch.cat([box(5, 15, 25, 35), box(20, 60, 20, 60), 0.4 * box(70, 80, 120, 128)])
    found, gone = seen_at_quarter(masks)
    assert gone and torch.equal(found[1], masks[1]) and int((found != masks).sum()) == 2
    cells = nearest_resize(found, (4, 4))
    assert cells[0].nonzero().tolist() == [[0, 0]] and cells[2].nonzero().tolist() == [[2, 3]]
    assert float(cells[2].max()) == pytest.approx(0.4)
    again, gone = seen_at_quarter(found)
    assert again is found and not gone
    assert seen_at_quarter(masks[:0])[1] is False


@pytest.mark.parametrize(("weight", "large"), [(0.01, False), (0.01, True), (0.0, False)])
def test_a_mask_that_is_not_compared_is_said_once(weight, large, monkeypatch):
    said = []
    monkeypatch.setattr(module, "warn_user", said.append)
    masks = torch.cat([box(5, 15, 25, 35), box(20, 100, 20, 60)])[int(large) :]
    scene = TrainingScene(torch.rand(1, 128, 128, 3), masks, ("<a>", "<b>")[int(large) :], ("",) * len(masks))
    settings = replace(METHODS["scene"], attention_weight=weight, placements=6)
    (source,) = sources_of(scene, (scene.words,), encoded, 128, settings, 0)
    seen = [bool(nearest_resize(place.whole, (4, 4)).flatten(1).any(1).all()) for place in source.places]
    assert seen == [bool(weight)] * 6
    assert len(said) == (bool(weight) and not large)
    assert all(sentence.startswith("the scene: a mask falls between") for sentence in said)
