"""Training pictures as latents in their places."""

from dataclasses import replace

import torch

from pack.nodes.training.methods import METHODS
from pack.nodes.training.picture_source import sources_of
from pack.nodes.training.pictures_wire import Subject, TrainingPictures

SETTINGS = replace(METHODS["parts"], placements=1, placement="crop", flip=False)


def encoded(pixels):
    return torch.zeros(4, *(side // 8 for side in pixels.shape[1:3]))


def test_pictures_of_one_subject_in_several_sizes_are_one_concept():
    subjects = [Subject(torch.rand(count, 64, 64, 3), word) for word, count in (("<a>", 2), ("<b>", 1), ("<a>", 1))]
    words = (("<a>",), ("<b>",), ("<a>",))
    found = sources_of(TrainingPictures(tuple(subjects)), words, encoded, 64, SETTINGS, 0)
    assert [(one.concept, one.number) for one in found] == [(0, 0), (0, 1), (1, 0), (0, 0)]
