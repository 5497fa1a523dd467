"""What a user asks of a training: its settings, with pictures of the class and without."""

import pytest
import torch

from pack.nodes.training import train_request as module
from pack.nodes.training.methods import METHODS
from pack.nodes.training.pictures_wire import ClassPictures
from pack.nodes.training.train_request import TrainingRequest

OF_CLASS = ClassPictures("class", torch.zeros(1, 4, 8, 8), "a cat")


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_pictures_of_the_class_count_where_the_method_has_them(method, weight, monkeypatch):
    said = []
    monkeypatch.setattr(module, "warn_user", said.append)
    found = TrainingRequest(method, prior_weight=weight).settings(OF_CLASS, "SD1.5").prior_weight
    counts = method in ("LoRA", "scene")
    assert found == (weight if counts else 0.0)
    assert len(said) == (not counts and weight > 0)
    assert all(f'"{method}" learns without class pictures' in sentence for sentence in said)
