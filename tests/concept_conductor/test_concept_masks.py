"""The masks of one run: which shapes they are compared with."""

import torch

from pack.nodes.concept_conductor.concept_masks import ConceptMasks


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
