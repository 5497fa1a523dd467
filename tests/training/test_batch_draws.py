"""What a batch draws, and what of its pictures a loss looks at."""

from dataclasses import replace

import pytest
import torch

from pack.nodes.training.batch_source import BatchSource
from pack.nodes.training.captions import Captions
from pack.nodes.training.methods import METHODS
from pack.nodes.training.picture_source import PlacedLatent, SourcePicture

SIZES = (64, 64, 0, 0, 64, 64)


def place(things=1):
    """A place whose picture fills the upper half of its canvas; its things are single cells."""
    masks = torch.eye(8)[:things, None].repeat(1, 8, 1)
    shown = torch.zeros(1, 8, 8)
    shown[:, :4] = 1
    return PlacedLatent(torch.ones(4, 8, 8), torch.zeros(0), masks, masks.repeat(1, 8, 8), shown, SIZES)


def picture(number=0):
    return SourcePicture((place(),) * 3, ("<a>",), number, Captions((("a <a>",),)), 0)


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
    scene = SourcePicture((place(2),), ("<a>", "<b>"), 0)
    masks = [BatchSource([scene], settings, 0, scene=True).batch(step).masks for step in range(8)]
    if mask_loss == "none":
        assert masks == [None] * 8
    elif mask_loss == "picture":
        assert all(torch.equal(mask[0], place().shown) for mask in masks)
    else:
        assert {int(mask.sum()) for mask in masks} == {8, 16}
