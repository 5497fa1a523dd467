"""The batches of a training, drawn without a network."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from pack.nodes.training.batch_source import BatchSource
from pack.nodes.training.methods import METHODS
from pack.nodes.training.picture_source import PlacedLatent, SourcePicture, of_whole_pictures


def place(things=3, shown=1.0):
    masks = torch.zeros(things, 8, 8)
    for number in range(things):
        masks[number, number] = 1
    whole = masks.repeat_interleave(8, -1).repeat_interleave(8, -2)
    seen = torch.full((1, 8, 8), shown)
    return PlacedLatent(torch.zeros(4, 8, 8), torch.zeros(1, 64, 64, 3), masks, whole, seen, (64, 64, 0, 0, 64, 64))


def scene(batch_size):
    settings = replace(METHODS["scene"], batch_size=batch_size)
    source = SourcePicture((place(),), ("<a>", "<b>", "<c>"), 0)
    return BatchSource((source,), settings, 0, scene=True)


def test_rows_of_a_scene_are_of_as_many_things():
    counts = set()
    for step in range(12):
        batch = scene(4).batch(step)
        assert len({len(words) for words in batch.shown}) == 1
        assert batch.regions.shape == (4, len(batch.shown[0]), 64, 64)
        for words, prompt, mask in zip(batch.shown, batch.prompts, batch.masks, strict=True):
            assert prompt == f"a photo of {' and '.join(words)}"
            assert int(mask.sum()) == 8 * len(words)
        counts.add(len(batch.shown[0]))
    assert counts == {1, 2, 3}


def test_a_batch_of_one_is_the_first_row_of_a_larger_one():
    for step in range(6):
        assert scene(1).batch(step).prompts == scene(4).batch(step).prompts[:1]


def test_pictures_that_a_crop_has_fitted_are_learned_without_their_edges(caplog):
    whole, fitted = (SimpleNamespace(places=(place(shown=shown),)) for shown in (1.0, 0.0))
    settings = replace(METHODS["word"], placement="crop")
    assert of_whole_pictures([whole], settings) is settings
    assert of_whole_pictures([whole, fitted], settings).mask_loss == "picture"
    assert "no square part of a picture shows all of its masks" in caplog.text
    human = replace(settings, placement="human")
    assert of_whole_pictures([fitted], human) is human


@pytest.mark.parametrize(
    ("method", "pictures", "prior", "rows"),
    [("LoRA", 5, 1.0, 2), ("LoRA", 5, 0.0, 1), ("parts", 3, 0.0, 3), ("ED-LoRA", 5, 0.0, 4)],
)
def test_rows_that_memory_is_announced_for(method, pictures, prior, rows):
    assert replace(METHODS[method], prior_weight=prior).rows(pictures) == rows
