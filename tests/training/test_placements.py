"""The places that a training draws for a picture."""

import pytest
import torch

from pack.nodes.training import placements as module
from pack.nodes.training.placements import PLACEMENTS, masks_at_latents, placements_of, whole_masks


@pytest.fixture
def said(monkeypatch):
    found = []
    monkeypatch.setattr(module, "warn_user", found.append)
    return found


def picture(height, width, box):
    """A picture and the mask of a box (top, bottom, left, right) in it."""
    image = torch.rand(height, width, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(1, height, width)
    mask[:, box[0] : box[1], box[2] : box[3]] = 1
    return image, mask


@pytest.mark.parametrize("way", list(PLACEMENTS))
@pytest.mark.parametrize("size, box", [((64, 400), (8, 56, 380, 396)), ((400, 64), (380, 396, 8, 56))])
def test_no_placement_loses_the_subject(way, size, box):
    made = placements_of(*picture(*size, box), way, 64, count=8, seed="a", flip=True)
    for placed in made:
        assert placed.pixels.shape == (3, 64, 64) and placed.original == size
        assert placed.masks.sum() > 4
    assert len({placed.pixels.numpy().tobytes() for placed in made}) > 1


def test_placements_depend_on_their_name_alone():
    image, mask = picture(100, 64, (10, 50, 10, 50))
    first, again, other = (placements_of(image, mask, "human", 64, count=3, seed=name) for name in ("a", "a", "b"))
    assert all(torch.equal(one.pixels, two.pixels) for one, two in zip(first, again, strict=True))
    assert not all(torch.equal(one.pixels, two.pixels) for one, two in zip(first, other, strict=True))


def test_half_of_the_pictures_are_mirrored_if_that_is_asked():
    image, mask = picture(64, 64, (8, 56, 8, 24))
    plain = placements_of(image, mask, "crop", 64, count=24, seed="a")
    turned = placements_of(image, mask, "crop", 64, count=24, seed="a", flip=True)
    mirrored = [not torch.equal(one.pixels, two.pixels) for one, two in zip(plain, turned, strict=True)]
    assert 4 < sum(mirrored) < 20
    for flip, one, two in zip(mirrored, plain, turned, strict=True):
        assert torch.equal(two.masks, one.masks.flip(-1) if flip else one.masks)


def test_pictures_without_masks():
    image, _ = picture(64, 96, (0, 0, 0, 0))
    (placed,) = placements_of(image, torch.zeros(0, 64, 96), "human", 64, count=1, seed="a")
    assert placed.masks.shape == (0, 64, 64)


def test_a_mask_smaller_than_a_cell_keeps_it_and_that_is_said(said):
    masks = torch.zeros(2, 64, 64)
    masks[0, 1, 1] = 1
    masks[1, :32] = 1
    found = masks_at_latents(masks, "picture 2")
    assert found[0].sum() == 1 and found[0, 0, 0] == 1 and found[1].sum() == 32
    (sentence,) = said
    assert sentence.startswith("picture 2: the mask is smaller")
    # nearest looks at the first pixel of each cell
    assert masks_at_latents(masks, "picture 2", nearest=True)[0, 0, 0] == 1


def test_masks_of_another_size_come_to_their_pictures():
    masks = torch.zeros(1, 4, 4)
    masks[..., :2] = 1
    found = whole_masks(masks, (8, 16))
    assert found.shape == (1, 8, 16) and found[..., :6].min() == 1 and found[..., 10:].max() == 0
    assert whole_masks(masks, (4, 4)) is masks


@pytest.mark.parametrize("way", list(PLACEMENTS))
def test_things_at_both_ends_of_a_wide_picture_are_all_shown(way):
    image = torch.rand(64, 160, 3, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(2, 64, 160)
    masks[0, 16:48, 4:24], masks[1, 16:48, 136:156] = 1, 1
    for placed in placements_of(image, masks, way, 64, count=4, seed="a", flip=True):
        assert placed.pixels.shape == (3, 64, 64) and all(area > 20 for area in placed.masks.sum((1, 2)))
        # what lies beside the picture is known
        assert float(placed.pixels[:, placed.shown == 0].sum()) == 0
