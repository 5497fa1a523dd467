"""Masks that follow attention maps, against recorded rounds and by what they must be."""

import pytest
import torch
from support.golden_data import case

from pack.kernels.mask_pyramid import grid_mask
from pack.kernels.mask_refinement import best_match, bounding_rectangle, followed, merged

GRID = (8, 8)
LEVELS = {1: (2, 2), 2: (4, 4), 4: (8, 8), 8: (16, 16)}


@pytest.mark.parametrize("name", ["separate", "overlapping", "fallback_rect", "rect"])
def test_golden_rounds(name):
    golden, params = case("concept_conductor/kernels")
    params = params["refine"][name]
    latent = [golden[f"{name}/mask_latent{i}"] > 0 for i in (1, 2)]
    old = {f: torch.stack([grid_mask(mask, size) for mask in latent])[:, None] for f, size in LEVELS.items()}
    running = {kind: old[4].clone() for kind in ("custom", "base")}
    for turn in range(params["rounds"]):
        here = f"{name}/round{turn}"
        for kind, masks in running.items():
            for i in (1, 2):
                labels = [golden[f"{here}/labels/{kind}{i}/image0/k{k}"].view(GRID) for k in (3, 4, 5)]
                mask = followed(labels, masks[i - 1, 0], params["mask_overlap_threshold"], params["rect_mask"])
                masks[i - 1, 0] = mask
                for f, size in LEVELS.items():
                    expected = golden[f"{here}/{kind}_mask{i}/factor{f}"] > 0
                    assert torch.equal(grid_mask(mask, size).flatten(), expected[0]), (turn, kind, i, f)
        for f, size in LEVELS.items():
            old[f] = merged(running["custom"], running["base"], old[f], size)
            for i in (1, 2):
                assert torch.equal(old[f][i - 1].flatten(1), golden[f"{here}/mask{i}/factor{f}"] > 0), (turn, i, f)


def test_point_masks():
    """The cluster at a point of the layout picture, at the map's layer and at the latent's size."""
    golden, params = case("concept_conductor/kernels")
    labels = golden["kmeans/labels"].view(GRID)
    height, width = params["points"]["image_px"]
    for i, (x, y) in enumerate(params["points"]["points_xy_px"], 1):
        cluster = labels == labels[y * GRID[0] // height, x * GRID[1] // width]
        assert torch.equal(cluster.flatten(), golden[f"points/mask{i}/factor4"] > 0)
        assert torch.equal(grid_mask(cluster, (16, 16)).flatten(), golden[f"points/mask{i}/factor8"] > 0)


def box(top, left, bottom, right):
    mask = torch.zeros(GRID, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def test_best_match_by_hand():
    old = box(0, 0, 4, 4)
    left, quarters = torch.zeros(GRID, dtype=torch.long), torch.zeros(GRID, dtype=torch.long)
    left[:, 4:] = 1
    quarters[:4, 4:], quarters[4:, :4], quarters[4:, 4:] = 1, 2, 3
    assert torch.equal(best_match([left, quarters], old, 0.0), old)
    assert torch.equal(best_match([left], old, 0.5), left == 0)
    assert best_match([left], old, 0.51) is None
    # equally good: the first one
    halves = [quarters, quarters.clone()]
    assert torch.equal(best_match(halves, box(0, 0, 4, 8), 0.0), quarters == 0)


def test_failed_matches():
    labels = [torch.arange(64).view(GRID)]
    old = box(1, 1, 3, 3) | box(5, 2, 6, 7)
    assert torch.equal(followed(labels, old, 0.9), box(1, 1, 6, 7))
    assert torch.equal(followed(labels, old, 0.9, keep=True), old)
    assert torch.equal(followed(labels, old, 0.0, rectangle=True), box(1, 1, 6, 7))
    empty = box(0, 0, 0, 0)
    assert not followed(labels, empty, 0.0).any() and not bounding_rectangle(empty).any()


def test_old_overlaps_survive():
    """Cells that several new masks cover keep their old owners, also when both owned them."""
    custom = torch.stack([box(0, 0, 8, 5), box(0, 3, 8, 8)])[:, None]
    old = torch.stack([box(0, 0, 8, 4), box(0, 4, 8, 8)])[:, None]
    new = merged(custom, custom, old, GRID)
    assert torch.equal(new, old)
    both = torch.stack([box(0, 0, 8, 5), box(0, 4, 8, 8)])[:, None]
    assert torch.equal(merged(custom, custom, both, GRID), both)


def test_seams_are_closed_at_coarse_levels():
    neighbours = torch.stack([box(0, 0, 8, 4), box(0, 5, 8, 8)])[:, None]
    size = (1, 3)
    old = grid_mask(neighbours, size)
    assert not merged(neighbours, neighbours, old, size)[..., 1].any()
    assert merged(neighbours, neighbours, old, size, close_seams=True)[:, 0, 0, 1].tolist() == [True, False]
