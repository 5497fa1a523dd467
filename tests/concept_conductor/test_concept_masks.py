"""The masks of one run: which shapes they are compared with."""

import torch

from pack.nodes.concept_conductor import concept_masks
from pack.nodes.concept_conductor.concept_masks import ConceptMasks, MasksOfCall


def test_two_concepts_look_for_three_to_five_shapes():
    """The background and each concept need one, and each may fall into two: N + 1 to 2 N + 1, on every map once."""
    masks = torch.zeros(2, 4, 4, dtype=torch.bool)
    masks[0, :, :2], masks[1, :, 2:] = True, True
    asked = []

    def cluster(rows, k):
        asked.append((float(rows[0, 0]), k))
        return torch.arange(len(rows)) % k

    found = ConceptMasks(masks, {(4, 4)})
    base, own, shared = (torch.full((1, 16, 16), float(number)) for number in range(3))
    found.refine(0, (4, 4), base, [own, own], cluster, 0.0)
    assert asked == [(number, k) for number in (0, 1) for k in (3, 4, 5)]
    asked.clear()
    found.refine(1, (4, 4), base, [own, shared], cluster, 0.0)
    assert asked == [(number, k) for number in (0, 1, 2) for k in (3, 4, 5)]


def halves(side):
    """The masks of two concepts, side by side."""
    masks = torch.zeros(2, side, side, dtype=torch.bool)
    masks[0, :, : side // 2], masks[1, :, side // 2 :] = True, True
    return masks


def test_a_run_that_goes_on_leaves_the_masks_of_the_one_before_as_they_are():
    """The second part of a run may be sampled again, with other settings: it begins with the same masks each time."""
    grid, labels = (4, 4), (torch.arange(16) // 4 + 1) % 4
    first, second = ConceptMasks(halves(4), {grid}), ConceptMasks(halves(4), {grid})
    maps = torch.zeros(1, 16, 16)
    first.refine(0, grid, maps, [maps, maps], lambda rows, k: labels % k, 0.0)
    state = first.state
    kept = [one.clone() for one in state[1:]]
    second.go_on(state)
    second.refine(1, grid, maps, [maps, maps], lambda rows, k: (labels + torch.arange(16)) % k, 0.0)
    assert not torch.equal(second.state[1], kept[0])
    assert all(torch.equal(one, before) for one, before in zip(state[1:], kept, strict=True))


def test_a_window_of_unknown_pictures_has_the_users_masks():
    """Each picture has masks of its own by then, and nobody can tell whose rows these are."""
    grid, rows = (4, 4), torch.arange(16)
    masks = ConceptMasks(halves(4), {grid})
    maps = torch.arange(2.0)[:, None, None].expand(2, 16, 16)
    masks.refine(0, grid, maps, [maps, maps], lambda found, k: (rows // 4 + rows * int(found[0, 0])) % k, 0.0)
    masks.enter(1)
    cpu, left = torch.device("cpu"), (0.0, 0.0, 1.0, 0.5)
    assert not torch.equal(masks.current[:, :1], masks.first[:, None])
    seen = MasksOfCall(masks, None, left).at((4, 2), cpu)
    assert torch.equal(seen, masks.first[:, None, :, :2].flatten(2))
    known = MasksOfCall(masks, [1, 0], left).at((4, 2), cpu)
    assert torch.equal(known, masks.current[:, [1, 0], :, :2].flatten(2))


def test_a_window_cuts_masks_once_for_each_grid(monkeypatch):
    """And not at each attention of each layer."""
    made, real = [], concept_masks.grid_mask
    masks = ConceptMasks(halves(4), {(4, 4), (2, 2)})
    monkeypatch.setattr(concept_masks, "grid_mask", lambda mask, grid: made.append(grid) or real(mask, grid))
    window = MasksOfCall(masks, None, (0.0, 0.0, 1.0, 0.5))
    for grid in [(4, 2), (2, 1)] * 3:
        window.at(grid, torch.device("cpu"))
    assert made == [(4, 2), (2, 1)]
