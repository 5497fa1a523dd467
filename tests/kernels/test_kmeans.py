"""k-means against recorded labels, and by what a clustering must be."""

import torch
from support.golden_data import case

from pack.kernels.kmeans import _means, kmeans


def inertia(rows, labels):
    return sum(((rows[labels == c] - rows[labels == c].mean(0)) ** 2).sum() for c in labels.unique())


def same_partition(a, b):
    return len({(int(x), int(y)) for x, y in zip(a, b)}) == len(a.unique()) == len(b.unique())


def test_golden():
    golden, params = case("concept_conductor/kernels")
    rows = golden["kmeans/attn"]
    labels = kmeans(rows, params["kmeans"]["k"], params["kmeans"]["num_init"])
    assert same_partition(labels, golden["kmeans/labels"]) and same_partition(labels, golden["kmeans/true"])
    torch.testing.assert_close(inertia(rows, labels), golden["kmeans/inertia"][0], rtol=1e-4, atol=0)


def test_nothing_moves_any_more():
    """Each point is at its nearest centre, and each centre is the mean of its points."""
    rows = torch.randn(60, 5, generator=torch.Generator().manual_seed(2))
    labels = kmeans(rows, 4, 10)
    centres = torch.stack([rows[labels == c].mean(0) for c in range(4)])
    assert torch.equal(torch.cdist(rows, centres).argmin(1), labels)


def test_equal_points_give_equal_labels():
    rows = torch.rand(50, 50)
    assert torch.equal(kmeans(rows, 5, 3), kmeans(rows.clone(), 5, 3))


def test_more_restarts_are_no_worse():
    rows = torch.randn(80, 3, generator=torch.Generator().manual_seed(3))
    assert inertia(rows, kmeans(rows, 7, 50)) <= inertia(rows, kmeans(rows, 7, 1)) + 1e-4


def test_few_points():
    rows = torch.tensor([[0.0, 0], [1, 1], [5, 5]])
    assert sorted(kmeans(rows, 9, 4).tolist()) == [0, 1, 2]
    # all points alike: one centre takes them all, the others stay where they are
    assert len(kmeans(torch.ones(6, 2), 3, 2).unique()) == 1


def test_a_centre_without_points_stays():
    """And jumps not to the origin, which may lie far from all points."""
    points, labels = torch.tensor([[8.0, 8], [10, 10], [4, 4]]), torch.tensor([[0, 0, 2]])
    centres = torch.tensor([[[7.0, 7], [6, 5], [4, 4]]])
    assert torch.equal(_means(points, labels, centres), torch.tensor([[[9.0, 9], [6, 5], [4, 4]]]))
