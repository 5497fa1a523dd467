"""What a user asks of a training: its settings, with pictures of the class and without."""

import pytest
import torch
from support.models import tiny_model
from support.word_files import concept_clip

from pack.nodes.text_contexts.concept_words import Word, with_words
from pack.nodes.training import train_request as module
from pack.nodes.training.methods import METHODS, settings_of
from pack.nodes.training.pictures_wire import ClassPictures
from pack.nodes.training.train_request import TrainingRequest, identity_of
from pack.nodes.training.training_pictures import with_subject

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


class Made:
    """What makes a word's rows."""

    def __init__(self, number):
        self.contents = {"weight": torch.full((2,), float(number))}, number


def identity(clip, method="word"):
    pictures = with_subject(torch.ones(1, 64, 64, 3), "<a>", "33", "{} in <room>", "object")
    settings = settings_of(method, {})
    return identity_of(TrainingRequest(method), settings, (("<a>",),), 64, pictures, None, (tiny_model(), clip, None))


@pytest.mark.parametrize("change", ["rows", "made", "keys", "name", "forgotten"])
def test_another_word_of_the_clip_decides_a_training(change):
    def knowing(number):
        changed = {"keys": {"keys_as": "33" if number else ""}, "made": {"maker": Made(number)}}.get(change, {})
        rows = torch.full((1, 32), float(number) if change == "rows" else 1.0)
        return Word(f"<room{number}>" if change == "name" else "<room>", {"l": rows}, **changed)

    clip = concept_clip()
    first = identity(with_words(clip, [knowing(0)]))
    assert identity(with_words(clip, [knowing(0)])) == first
    other = identity(clip if change == "forgotten" else with_words(clip, [knowing(1)]))
    assert [name for name in first if first[name] != other[name]] == ["model"]


def test_the_word_that_is_trained_may_be_known_before():
    clip = concept_clip()
    taught = with_words(clip, [Word("<a>", {"l": torch.ones(1, 32)})])
    assert identity(taught) == identity(clip)
    # a LoRA learns no word, and reads those that it is given
    assert identity(taught, "LoRA") != identity(clip, "LoRA")
