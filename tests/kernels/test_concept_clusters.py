"""Things of a picture by what looks at what: recorded clusters of published code, and small cases by hand."""

import pytest
import torch
import torch.nn.functional as F
from support.compare import relative
from support.golden_data import case

from pack.kernels.concept_clusters import cluster_levels, divergences, found_concepts, joined_masks, parts_of


@pytest.fixture(scope="module")
def picture():
    """(golden tensors, parameters, rows (n, n), saliency (h, w)) of the recorded picture."""
    golden, params = case("training/find_concepts")
    rows = golden["mixtures"].float() @ golden["prototypes"].float()
    grid = (params["grid"],) * 2
    saliency = F.interpolate(golden["saliency"][None, None], size=grid, mode="bilinear")[0, 0]
    saliency = (saliency - saliency.min()) / (saliency.max() - saliency.min())
    return golden, params, rows / rows.sum(1, keepdim=True), saliency


def test_recorded_levels(picture):
    golden, params, rows, _ = picture
    levels = cluster_levels(rows)
    assert [level.count for level in levels] == params["counts"]
    for number, level in enumerate(levels):
        assert torch.equal(level.labels.int(), golden["labels_all_levels"][:, number])
    assert levels[params["chosen"]].limit == pytest.approx(params["limit"], rel=1e-6)


def test_recorded_things(picture):
    golden, params, rows, saliency = picture
    masks = found_concepts(rows, saliency, saliency.shape, params["least"])
    assert torch.equal(torch.stack(masks), golden["masks"].bool())
    # with fewer clusters asked for, a coarser level counts; with more than there are, the finest
    assert len(found_concepts(rows, saliency, saliency.shape, 4)) == 1
    assert len(found_concepts(rows, saliency, saliency.shape, 1000)) > 2


def test_divergences_by_hand():
    p = torch.tensor([[0.5, 0.25, 0.25], [0.125, 0.375, 0.5], [0.0, 0.5, 0.5]])
    found = divergences(p)
    one, two = p[0].double(), p[1].double()
    wanted = ((one * (one / two).log()).sum() + (two * (two / one).log()).sum()) / 2
    assert float(found[0, 1]) == pytest.approx(float(wanted), rel=1e-12) and relative(found, found.mT) < 1e-12
    # a place that looks at none of what another looks at is far, not lost
    assert torch.isfinite(found).all() and found[0, 2] > 100


def hills(*places, count=9):
    """Rows whose mass lies around places."""
    cells = torch.arange(count).float()
    rows = torch.stack([torch.exp(-((cells - place) ** 2) / 4) for place in places])
    return rows / rows.sum(1, keepdim=True)


def test_levels_end_where_nothing_is_left_to_join():
    # two pairs: they join, and then the two would become one, which is no level
    (level,) = cluster_levels(hills(1.0, 6.0, 1.2, 6.3))
    assert level.labels.tolist() == [0, 1, 0, 1]
    assert cluster_levels(hills(1.0, 1.2)) == [] == cluster_levels(hills(1.0))
    # five in three: the level that takes one away is the last
    counts = [level.count for level in cluster_levels(hills(0.0, 0.2, 4.0, 8.0, 8.2))]
    assert counts[0] == 2


def test_things_join_only_where_they_touch():
    masks = torch.zeros(4, 4, 6).bool()
    masks[0, :, 0], masks[1, :, 1], masks[2, :, 4], masks[3, 0, 2] = True, True, True, True
    alike = hills(1.0, 1.1, 1.05, 7.0)
    found = joined_masks(alike, masks, limit=1.0)
    assert [int(mask.sum()) for mask in found] == [8, 4, 1]
    assert [int(mask.sum()) for mask in joined_masks(alike, masks, limit=1e-9)] == [4, 4, 4, 1]


def test_parts_of_masks():
    mask = torch.tensor([[1, 0, 1], [1, 0, 0], [0, 1, 1]]).bool()
    assert parts_of(mask) == 3 and parts_of(torch.zeros(2, 2).bool()) == 0 and parts_of(torch.ones(3, 3).bool()) == 1


def test_a_picture_without_anything_that_stands_out():
    rows = hills(*([1.0, 1.1, 7.0, 7.2, 4.0, 4.1] * 2))
    assert found_concepts(rows, torch.ones(3, 4), (3, 4), 2) == []
    assert found_concepts(torch.full((4, 4), 0.25), torch.rand(2, 2), (2, 2), 2) == []
