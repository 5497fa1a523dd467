"""Crop Subject and Paste Subject: to the pixel, there and back."""

import pytest
import torch
from support.golden_data import case
from support.models import execute

from pack.nodes.editing.subject_crop_node import SubjectCrop, SubjectPaste


@pytest.fixture(scope="module")
def golden():
    return {name: tensor[None].float() / 255 for name, tensor in case("visctrl/crop_paste")[0].items() if name != "box"}


def box_mask(height, width, top, left, h, w):
    mask = torch.zeros(1, height, width)
    mask[:, top : top + h, left : left + w] = 1
    return mask


def test_the_published_crop(golden):
    image, mask, _ = execute(SubjectCrop, image=golden["image"], mask=golden["mask_processed"], size=60)
    assert torch.equal(image, golden["crop_target"])
    assert mask.sum() == (golden["mask_processed"] > 0).sum()


def test_the_published_paste(golden):
    *_, crop = execute(SubjectCrop, image=golden["image"], mask=golden["mask"])
    (found,) = execute(
        SubjectPaste, image=golden["image"], crop=crop, edited=golden["edited"], mask=golden["edited_mask"]
    )
    assert ((found - golden["pasted"]) * 255).abs().max() <= 1.001


@pytest.mark.parametrize("background", ["white", "keep"])
@pytest.mark.parametrize("box", [(3, 5, 17, 40), (0, 0, 31, 8), (20, 60, 30, 20)])
def test_what_was_cut_out_goes_back(background, box):
    picture, mask = torch.rand(1, 50, 80, 3), box_mask(50, 80, *box)
    edited, _, crop = execute(SubjectCrop, image=picture, mask=mask, size=max(box[2:]), background=background)
    (found,) = execute(SubjectPaste, image=torch.zeros_like(picture), crop=crop, edited=edited)
    assert torch.equal(found, picture * mask[..., None])


def test_the_square_is_as_large_as_asked():
    picture = torch.rand(2, 50, 80, 3)
    for size, side in ((0, 512), (64, 64), (8, 8)):
        image, mask, crop = execute(SubjectCrop, image=picture, mask=box_mask(50, 80, 3, 5, 17, 40), size=size)
        assert image.shape == (2, side, side, 3) and mask.shape == (2, side, side) and len(crop) == 2
        assert image.min() >= 0 and image.max() <= 1
    # a box of 40 x 17: what is above and below it is white
    assert image[:, 0].min() == 1 and image[:, 4].max() < 1


def test_keep_shows_what_is_around():
    picture = torch.rand(1, 50, 80, 3)
    image, _, _ = execute(SubjectCrop, image=picture, mask=box_mask(50, 80, 0, 10, 11, 40), size=40, background="keep")
    # (40 - 11) // 2 = 14 rows lie above the picture
    assert image[0, :14].min() == 1
    assert torch.equal(image[0, 14:], picture[0, :26, 10:50])


def test_grow_is_even_on_all_sides():
    picture = torch.rand(1, 50, 80, 3)
    _, mask, crop = execute(SubjectCrop, image=picture, mask=box_mask(50, 80, 20, 30, 10, 10), size=16, grow=3)
    assert crop[0].box == (27, 17, 16, 16) and mask.min() == 1


def test_only_full_white_is_kept():
    mask = box_mask(50, 80, 20, 30, 10, 10) + 0.99 * box_mask(50, 80, 0, 0, 10, 10)
    *_, crop = execute(SubjectCrop, image=torch.rand(1, 50, 80, 3), mask=mask)
    assert crop[0].box == (30, 20, 10, 10)


def test_feather_softens_inside_the_box_alone():
    picture, mask = torch.zeros(1, 60, 60, 3), box_mask(60, 60, 10, 10, 40, 40)
    mask[:, :20, :20] = 0
    edited, _, crop = execute(SubjectCrop, image=picture, mask=mask, size=40)
    (found,) = execute(SubjectPaste, image=picture, crop=crop, edited=torch.ones_like(edited), feather=4)
    outside = box_mask(60, 60, 10, 10, 40, 40) == 0
    assert found[outside].abs().max() == 0
    assert found[0, 30, 30, 0] == pytest.approx(1, abs=1e-5) and 0 < found[0, 12, 30, 0] < 1
    steps = found[0, 10:50, 14, 0].diff()
    assert steps.min() > -0.3 and 0 < steps.max() < 0.3


def test_masks_of_other_sizes_are_resized():
    *_, crop = execute(SubjectCrop, image=torch.rand(1, 100, 160, 3), mask=box_mask(50, 80, 20, 30, 10, 10))
    left, top, width, height = crop[0].box
    assert abs(left - 60) <= 1 and abs(top - 40) <= 1 and 18 <= width <= 20 and 18 <= height <= 20


def test_a_batch_has_a_place_for_each():
    pictures = torch.rand(2, 50, 80, 3)
    masks = torch.cat([box_mask(50, 80, 0, 0, 10, 10), box_mask(50, 80, 20, 30, 10, 10)])
    edited, _, crop = execute(SubjectCrop, image=pictures, mask=masks, size=10)
    assert torch.equal(edited[1], pictures[1, 20:30, 30:40])
    (found,) = execute(SubjectPaste, image=torch.zeros_like(pictures), crop=crop, edited=edited)
    assert torch.equal(found, pictures * masks[..., None])


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.zeros(1, 50, 80), "the mask of the target is empty; paint it white on the thing to replace"),
        (torch.full((1, 50, 80), 0.9), "the mask of the target is empty"),
        (torch.zeros(1, 0, 80), "the mask of the picture is empty"),
        (torch.full((1, 50, 80), torch.nan), "NaN or infinite values"),
        (torch.ones(3, 50, 80), "3 masks came for 2 pictures"),
        (torch.ones(2, 3, 50, 80), r"has the shape \(2, 3, 50, 80\)"),
    ],
)
def test_bad_masks(mask, message):
    with pytest.raises(ValueError, match=message):
        execute(SubjectCrop, image=torch.rand(2, 50, 80, 3), mask=mask)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"image": torch.rand(1, 480, 640, 3)}, "the picture is 640x480, the crop was taken from 80x50"),
        ({"mask": torch.zeros(1, 8, 8)}, "the mask of the edited picture is empty"),
        ({"edited": torch.zeros(0, 8, 8, 3)}, "edited has no picture"),
        ({"image": torch.rand(2, 50, 80, 3), "edited": torch.rand(3, 8, 8, 3)}, "2 pictures came, where others are 3"),
        ({"crop": None}, "crop is empty; connect the crop of Crop Subject"),
    ],
)
def test_bad_pastes(inputs, message):
    picture = torch.rand(1, 50, 80, 3)
    *_, crop = execute(SubjectCrop, image=picture, mask=box_mask(50, 80, 20, 30, 10, 10))
    with pytest.raises(ValueError, match=message):
        execute(SubjectPaste, **{"image": picture, "crop": crop, "edited": torch.rand(1, 8, 8, 3), **inputs})


def test_grow_is_the_square_around_each_pixel():
    mask = torch.zeros(1, 400, 500)
    mask[0, 100, 200] = mask[0, 300, 30] = 1
    _, _, crop = execute(SubjectCrop, image=torch.rand(1, 400, 500, 3), mask=mask, size=64, grow=60)
    assert crop[0].box == (0, 40, 261, 321)
