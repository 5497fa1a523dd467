"""Masks at token grids: the published resize, soft masks, frames and boxes."""

import math
from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F
from support.golden_data import case

from pack.kernels.masks import (
    area_resize,
    bilinear_resize,
    box_mask,
    is_binary,
    kept_tokens,
    nearest_resize,
    token_mask,
)


@pytest.mark.parametrize("image", [0, 1])
def test_published_resize(image):
    golden, params = case("mrsa/mask_resize")
    grid = nearest_resize(golden[f"image{image}"] // 255, (128, 128))
    assert torch.equal(grid, golden[f"grid128_{image}"])
    for height, width in params["layer_sizes"]:
        assert torch.equal(nearest_resize(grid, (height, width)), golden[f"layer_{image}_{height}x{width}"])


@pytest.mark.parametrize(
    ("size", "grid"), [((7, 5), (3, 4)), ((15, 13), (15, 13)), ((9, 57), (5, 29)), ((3, 3), (8, 9))]
)
def test_nearest_takes_the_floor_index(size, grid):
    mask = torch.rand(size)
    expected = torch.tensor(
        [[mask[i * size[0] // grid[0], j * size[1] // grid[1]] for j in range(grid[1])] for i in range(grid[0])]
    )
    assert torch.equal(nearest_resize(mask, grid), expected)


def test_a_frame_is_a_crop():
    mask = torch.rand(40, 60)
    frame = (4 / 40, 15 / 60, 36 / 40, 51 / 60)
    assert torch.equal(nearest_resize(mask, (16, 12), frame), nearest_resize(mask[4:36, 15:51], (16, 12)))
    assert torch.equal(area_resize(mask[None], (16, 12), frame), area_resize(mask[None, 4:36, 15:51], (16, 12)))


@pytest.mark.parametrize("length", [48, 49, 57, 97])
def test_every_frame_of_whole_pixels_is_a_crop(length):
    """Its edges are fractions that no float holds exactly: start / length * length may fall short of start."""
    mask = torch.arange(length)[:, None]
    for start in range(length):
        for stop in range(start + 1, length + 1):
            frame = (start / length, 0.0, stop / length, 1.0)
            found = nearest_resize(mask, (stop - start, 1), frame)[:, 0]
            assert torch.equal(found, torch.arange(start, stop)), frame
            area = area_resize(mask[None].float(), (stop - start, 1), frame)[0, :, 0]
            assert torch.equal(area, torch.arange(start, stop).float()), frame


@pytest.mark.parametrize("frame", [(0.1, 0.0, 0.9, 1.0), (1 / 3, 0.25, 1.0, 0.77), (0.0, 0.011, 1.0, 0.989)])
def test_a_frame_between_pixels(frame):
    mask, (height, width) = torch.rand(37, 53), (9, 8)
    top, left, bottom, right = (Fraction(edge).limit_denominator(1000) for edge in frame)
    rows = [math.floor(37 * (top + i * (bottom - top) / height)) for i in range(height)]
    columns = [math.floor(53 * (left + j * (right - left) / width)) for j in range(width)]
    assert torch.equal(nearest_resize(mask, (height, width), frame), mask[rows][:, columns])
    # an area takes every pixel that the frame touches
    touched = mask[math.floor(37 * top) : math.ceil(37 * bottom), math.floor(53 * left) : math.ceil(53 * right)]
    assert torch.equal(area_resize(mask[None], (height, width), frame), area_resize(touched[None], (height, width)))


def test_area_is_the_mean_of_each_cell():
    mask = torch.rand(1, 12, 20)
    expected = mask.reshape(1, 3, 4, 5, 4).mean((2, 4))
    torch.testing.assert_close(area_resize(mask, (3, 5)), expected)


def test_binary_masks_stay_binary_and_grey_ones_are_averaged():
    binary = (torch.rand(33, 47) > 0.5).float()
    assert is_binary(binary) and is_binary(token_mask(binary, (8, 8)))
    grey = binary.clone()
    grey[0, 0] = 0.5
    assert not is_binary(grey)
    torch.testing.assert_close(token_mask(grey, (8, 8)), area_resize(grey[None], (8, 8))[0])


def test_kept_tokens_are_those_above_zero_with_their_logarithm():
    mask = torch.tensor([[0.0, 0.5], [1.0, 0.25]])
    index, log_mask = kept_tokens(mask, (2, 2))
    assert index.tolist() == [1, 2, 3]
    torch.testing.assert_close(log_mask, torch.tensor([math.log(0.5), 0.0, math.log(0.25)]))


def test_an_empty_mask_keeps_nothing():
    index, log_mask = kept_tokens(torch.zeros(9, 9), (4, 4))
    assert len(index) == len(log_mask) == 0


def test_box_mask():
    assert torch.equal(box_mask((4, 8), (0, 0, 1, 0.5)), torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0]).expand(4, 8))
    # halves meet without a gap or an overlap, at odd sizes too
    left, right = box_mask((5, 7), (0, 0, 1, 0.5)), box_mask((5, 7), (0, 0.5, 1, 1))
    assert ((left + right) >= 1).all() and (left + right).sum() <= 5 * 8
    soft = box_mask((64, 64), (0.25, 0.25, 0.75, 0.75), feather=0.125)
    assert soft[32, 32] == 1 and 0 < soft[32, 17] < soft[32, 20] < 1 and soft[32, 10] == 0
    # the ramp is a part of the shorter side, whichever that is
    for size, box in (((8, 32), (0, 0.25, 1, 0.75)), ((32, 8), (0.25, 0, 0.75, 1))):
        wide = box_mask(size, box, feather=0.25)
        line = wide[4] if size[0] == 8 else wide[:, 4]
        assert line[7:12].tolist() == [0, 0.25, 0.75, 1, 1] and line[20:25].tolist() == [1, 1, 0.75, 0.25, 0]
    # a box that fills the picture has no edge to soften
    assert torch.equal(box_mask((8, 8), (0, 0, 1, 1), feather=0.5), torch.ones(8, 8))


@pytest.mark.parametrize("size", [(8, 8), (5, 11), (64, 40), (1, 1)])
def test_bilinear_resize_is_torchs(size):
    masks = torch.rand(2, 13, 17, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(masks[None], size=size, mode="bilinear", align_corners=False)[0]
    assert torch.equal(bilinear_resize(masks, size), expected)
    # the same by the way that frames go
    torch.testing.assert_close(bilinear_resize(masks, size, (0.0, 0.0, 1.0, 1.0 - 1e-9)), expected)


def test_bilinear_resize_of_a_part():
    """A part on its own grid is the same part of the whole on the whole's grid."""
    masks = torch.rand(2, 13, 17, generator=torch.Generator().manual_seed(0))
    whole = bilinear_resize(masks, (16, 24))
    part = bilinear_resize(masks, (8, 6), (0.25, 0.5, 0.75, 0.75))
    torch.testing.assert_close(part, whole[:, 4:12, 12:18])
