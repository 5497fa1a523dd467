"""Latents and masks: sizes, forms, and values that a mask may have."""

import pytest
import torch
from support.devices import two_cards, with_cards

from pack.nodes.host.latents import batched_mask, bounded_mask, centre_crop, checked_images, pixels_of
from pack.nodes.host.panels import as_picture


def test_values_of_a_mask_lie_between_0_and_1():
    mask = torch.tensor([[-0.5, 0.25, 1.5]], dtype=torch.float64)
    found = bounded_mask(mask, "reference 1", "mask")
    assert found.dtype == torch.float32 and found.tolist() == [[0, 0.25, 1]]
    mask[0, 1] = torch.nan
    with pytest.raises(ValueError, match="the mask of reference 1 has NaN or infinite values"):
        bounded_mask(mask, "reference 1", "mask")


@with_cards
def test_pictures_and_masks_on_a_card_come_to_main_memory(monkeypatch):
    image, mask = torch.rand(1, 6, 5, 3), torch.rand(1, 6, 5)
    with two_cards(monkeypatch) as cards:
        there = image.to(cards[0]), mask.to(cards[0])
        found = checked_images(there[0], "image"), bounded_mask(there[1], "the picture", "mask")
        drawn = as_picture(there[0][0])
    assert torch.equal(found[0], image) and torch.equal(found[1], mask)
    assert drawn.size == (5, 6)


@pytest.mark.parametrize("shape", [(5, 7), (1, 5, 7), (1, 1, 5, 7), (1, 5, 7, 1)])
def test_forms_of_one_mask(shape):
    assert batched_mask(torch.zeros(shape)).shape == (1, 5, 7)


@pytest.mark.parametrize(
    ("size", "wanted", "kept"),
    [
        ((96, 128), (96, 96), (slice(0, 96), slice(16, 112))),
        ((128, 96), (48, 48), (slice(16, 112), slice(0, 96))),
        ((96, 128), (48, 64), (slice(0, 96), slice(0, 128))),
        ((64, 64), (128, 64), (slice(0, 64), slice(16, 48))),
    ],
)
def test_the_middle_of_another_aspect(size, wanted, kept):
    assert centre_crop(size, wanted) == kept


def test_a_latent_pixel_is_8_by_8():
    assert pixels_of((9, 13)) == (72, 104)
