"""The batches of a training, drawn without a network, and what of their pictures a loss looks at."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from pack.nodes.training.batch_source import BatchSource
from pack.nodes.training.captions import Captions
from pack.nodes.training.methods import METHODS
from pack.nodes.training.picture_source import PlacedLatent, SourcePicture, of_whole_pictures
from pack.nodes.training.train_losses import attention_loss


def place(things=3, shown=1.0):
    """A place whose things are single cells; shown: the share of its canvas, from the top, that the picture fills."""
    masks = torch.zeros(things, 8, 8)
    for number in range(things):
        masks[number, number] = 1
    whole = masks.repeat_interleave(8, -1).repeat_interleave(8, -2)
    seen = torch.zeros(1, 8, 8)
    seen[:, : round(8 * shown)] = 1
    return PlacedLatent(torch.ones(4, 8, 8), torch.zeros(1, 64, 64, 3), masks, whole, seen, (64, 64, 0, 0, 64, 64))


def picture(number=0):
    return SourcePicture((place(1),) * 3, ("<a>",), number, Captions((("a <a>",),)), 0)


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


def test_a_large_batch_has_all_the_numbers_it_needs():
    settings = replace(METHODS["LoRA"], batch_size=200)
    batch = BatchSource([picture()] * 3, settings, 0, (torch.ones(2, 4, 8, 8), "a cat")).batch(5)
    assert len(batch.latents) == len(batch.class_latents) == 200
    assert len({*batch.timesteps.tolist(), *batch.class_timesteps.tolist()}) > 250


def test_more_pictures_than_numbers_at_once():
    batch = BatchSource([picture(number) for number in range(600)], METHODS["parts"], 0).batch(0)
    assert len(batch.timesteps) == 600 and batch.timesteps[512:].unique().numel() > 50


@pytest.mark.parametrize("mask_loss", ["none", "region", "picture"])
def test_what_the_loss_of_a_scene_looks_at(mask_loss):
    settings = replace(METHODS["scene"], mask_loss=mask_loss)
    source = SourcePicture((place(2, 0.5),), ("<a>", "<b>"), 0)
    masks = [BatchSource([source], settings, 0, scene=True).batch(step).masks for step in range(8)]
    if mask_loss == "none":
        assert masks == [None] * 8
    elif mask_loss == "picture":
        assert all(torch.equal(mask[0], place(2, 0.5).shown) for mask in masks)
    else:
        assert {int(mask.sum()) for mask in masks} == {8, 16}


@pytest.mark.parametrize("bare", [(), (1,), (0, 2), (0, 1, 2)])
def test_a_picture_without_a_mask_leaves_the_words_of_others_at_theirs(bare, caplog):
    sources = [replace(picture(number), words=(f"<{number}>",)) for number in range(3)]
    for number in bare:
        sources[number] = replace(sources[number], places=(place(0),))
    batch = BatchSource(sources, METHODS["parts"], 0).batch(0)
    masked = [number for number in range(3) if number not in bare]
    if masked:
        assert batch.shown == tuple((f"<{number}>",) if number in masked else () for number in range(3))
        assert torch.equal(batch.regions, place(1).whole.expand(len(masked), 1, 64, 64))
    else:
        assert batch.regions is None and batch.shown == ()
    of_whole_pictures(sources, METHODS["parts"])
    of_whole_pictures(sources, METHODS["LoRA"])
    assert caplog.text.count("have no mask") == bool(bare)
    assert not bare or f"{len(bare)} of 3 pictures have no mask" in caplog.text


def test_the_loss_of_maps_is_the_mean_over_pictures_with_a_mask():
    settings = METHODS["parts"].losses()
    with torch.inference_mode(False), torch.enable_grad():
        maps, regions, expected = torch.rand(3, 4, 1).double().requires_grad_(), torch.zeros(2, 1, 8, 8), 0
        regions[:, :, :4] = 1
        batch = SimpleNamespace(regions=regions, shown=(("<a>",), (), ("<b>",)))
        found = attention_loss(settings, {(2, 2): [maps * torch.tensor([1, 0, 1])[:, None, None]]}, batch, (2, 2))
        found.backward()
    gradient, maps = maps.grad, maps.detach()
    for row in (0, 2):
        scaled = maps[row, :, 0] / maps[row].max()
        expected = expected + ((torch.tensor([1.0, 1.0, 0.0, 0.0]) - scaled) ** 2).mean() / 2
    assert float(found) == pytest.approx(0.01 * float(expected))
    assert gradient.isfinite().all() and not gradient[1].any()
