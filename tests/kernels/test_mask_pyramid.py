"""Masks at token grids against recorded values, and against a slow rule written out."""

import pytest
import torch
from support.golden_data import case

from pack.kernels.mask_pyramid import coverage, grid_mask, without_seams


@pytest.mark.parametrize("name", ["square", "wide"])
def test_pyramid(name):
    golden, _ = case("concept_conductor/kernels")
    picture = golden[f"pyramid_{name}/image_px"]
    height, width = (side // 64 for side in picture.shape)
    latent = grid_mask(picture / 255, (8 * height, 8 * width))
    assert torch.equal(latent, golden[f"pyramid_{name}/mask_latent"] > 0)
    for factor in (1, 2, 4, 8):
        level = grid_mask(latent, (factor * height, factor * width))
        assert torch.equal(level.flatten(), golden[f"pyramid_{name}/factor{factor}"] > 0)


def slow_coverage(line, cells):
    """A line resized by the triangle filter of antialiased bilinear resizing."""
    scale = len(line) / cells
    support = max(1.0, scale)
    out = []
    for cell in range(cells):
        centre = (cell + 0.5) * scale
        weights = [max(0.0, 1 - abs((i + 0.5 - centre) / support)) for i in range(len(line))]
        out.append(sum(w * v for w, v in zip(weights, line)) / sum(weights))
    return out


@pytest.mark.parametrize("cells", [1, 3, 4, 7, 13, 26])
def test_coverage_is_a_triangle_filter(cells):
    line = torch.rand(13, generator=torch.Generator().manual_seed(cells))
    expected = torch.tensor(slow_coverage(line.tolist(), cells))
    torch.testing.assert_close(coverage(line.expand(5, 13), (5, cells))[2], expected)


def test_a_tie_is_left_out():
    mask = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert float(coverage(mask, (1, 1))) == 0.5
    assert not grid_mask(mask, (1, 1))


def test_seams_are_closed():
    """Two boxes that nearly touch cover 2 of 3 cells; closed, they cover all, and nobody loses or shares a cell."""
    masks = torch.zeros(2, 8, 24)
    masks[0, :, :11], masks[1, :, 12:] = 1, 1
    covered = coverage(masks, (1, 3))
    plain = covered > 0.5
    assert plain[:, 0].tolist() == [[True, False, False], [False, False, True]]
    closed = without_seams(covered, plain)
    assert closed[:, 0].tolist() == [[True, False, False], [False, True, True]]


def test_a_tie_between_masks_and_background_is_left_out():
    """Two masks that cover a quarter of a cell each cover half of it together, and that is not more than half."""
    masks = torch.zeros(2, 2, 2)
    masks[0, 0, 0] = masks[1, 1, 1] = 1
    covered = coverage(masks, (1, 1))
    assert covered.flatten().tolist() == [0.25, 0.25]
    assert not without_seams(covered, covered > 0.5).any()


def test_seams_leave_background_and_overlaps_alone():
    masks = torch.zeros(2, 8, 8)
    masks[0, :2, :2], masks[1, :, 4:], masks[0, :, 6:] = 1, 1, 1
    covered = coverage(masks, (4, 4))
    assert without_seams(covered, covered > 0.5).equal(covered > 0.5)


def test_leading_axes_are_kept():
    masks = torch.rand(3, 2, 9, 7) > 0.5
    assert grid_mask(masks, (5, 4)).shape == (3, 2, 5, 4)
    assert grid_mask(masks, (9, 7)).equal(masks)
