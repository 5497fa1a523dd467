"""Parts of pictures and masks."""

import pytest
import torch

from pack.kernels.masks import bilinear_resize, regions_at
from pack.kernels.picture_parts import bounds_of, on_white_square, part_in_frame


@pytest.mark.parametrize("kept", [[(2, 3)], [(0, 0), (5, 6)], [(1, 6), (4, 2)]])
def test_bounds_hold_all_that_is_kept_and_no_more(kept):
    mask = torch.zeros(6, 7, dtype=torch.bool)
    for place in kept:
        mask[place] = True
    rows, columns = bounds_of(mask)
    assert mask[rows, columns].sum() == len(kept)
    assert (rows.start, rows.stop) == (min(y for y, _ in kept), max(y for y, _ in kept) + 1)
    assert (columns.start, columns.stop) == (min(x for _, x in kept), max(x for _, x in kept) + 1)


def test_a_frame_in_pixels():
    assert part_in_frame((0.0, 0.0, 1.0, 1.0), (4, 6)) == (slice(0, 4), slice(0, 6))
    assert part_in_frame((0.24, 0.5, 0.76, 0.99), (4, 6)) == (slice(1, 3), slice(3, 6))


@pytest.mark.parametrize("size", [(3, 8), (8, 3), (5, 5)])
def test_a_white_square_around_the_middle(size):
    square = on_white_square(torch.zeros(2, *size, 3))
    side = max(size)
    assert square.shape == (2, side, side, 3) and square.sum() == 6 * (side**2 - size[0] * size[1])
    top, left = ((side - one) // 2 for one in size)
    assert not square[:, top : top + size[0], left : left + size[1]].any()


def test_regions_of_any_sizes_and_of_none():
    frame, mask = (0.0, 0.5, 1.0, 1.0), torch.rand(6, 7)
    found = regions_at((None, mask), (2, 3), frame)
    assert torch.equal(found[0], torch.ones(2, 3))
    assert torch.equal(found[1], bilinear_resize(mask[None], (2, 3), frame)[0])
