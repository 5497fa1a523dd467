"""What looks at what in a picture -> its things, without a word for them (ConceptExpress, arXiv 2407.07077).

First-neighbour clustering: everything joins what it is most like, then the clusters do, level by level.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import combinations

import torch

# The distance of a row to itself, which is nobody's nearest.
_FAR = 1e12


@dataclass(frozen=True, eq=False)
class ClusterLevel:
    """One level: the number of each row's cluster (n,), and the largest distance that was bridged to get there."""

    labels: torch.Tensor
    limit: float

    @property
    def count(self):
        return int(self.labels.max()) + 1


def divergences(rows):
    """1/2 (KL(p | q) + KL(q | p)) of all pairs of rows (n, d) that sum to 1: (n, n) float64, far from itself.

    In double: near neighbours are so much alike that the rounding of single precision would choose among them.
    """
    p = rows.double()
    logarithms = p.clamp(min=torch.finfo(torch.float64).tiny).log()
    own = (p * logarithms).sum(1)
    cross = p @ logarithms.mT
    found = (own[:, None] + own[None] - cross - cross.mT) / 2
    return found.fill_diagonal_(_FAR)


def cluster_levels(rows, touching=None, limit=None):
    """The ClusterLevels of rows (n, d), each coarser than the one before; none where all rows are one thing.

    Rows i and j are linked where {i, its nearest} and {j, its nearest} meet. With a limit a link counts only up to that
    distance, and where touching(labels, i, j) holds of two clusters of the labels (n,).
    """
    rows = rows.cpu().double()
    labels, levels = torch.arange(len(rows)), []
    while int(labels.max()) > 0:
        distance = divergences(_means(rows, labels))
        pairs, shared = _linked(distance.argmin(1))
        bridged = distance[pairs[0], pairs[1]]
        if limit is not None:
            kept = [bridged[k] <= limit and touching(labels, i, j) for k, (i, j) in enumerate(pairs.mT.tolist())]
            pairs = pairs[:, torch.tensor(kept)]
        joined = _components(pairs.mT.tolist(), len(distance))[labels]
        count, before = int(joined.max()) + 1, len(distance)
        if count in (1, before):
            break
        levels.append(ClusterLevel(joined, float((bridged * shared).max())))
        labels = joined
        if count == before - 1:
            break
    return levels


def found_concepts(rows, saliency, grid, least):
    """[(h, w) bool] of the things that stand out of a picture, by its rows (n, n), n = h * w of the grid.

    rows: what each place looks at, sums of 1; saliency (h, w): how much each place stands out. The last level with at
    least `least` clusters is taken, or the first; of its clusters those that stand out more than the picture does, and
    of these such as are alike and touch become one thing.
    """
    levels = cluster_levels(rows)
    if not levels:
        return []
    level = next((level for level in reversed(levels) if level.count >= least), levels[0])
    values = saliency.flatten().cpu().double()
    chosen = [c for c in range(level.count) if values[level.labels == c].mean() > values.mean()]
    if not chosen:
        return []
    masks = torch.stack([(level.labels == c).view(grid) for c in chosen])
    return joined_masks(_means(rows.cpu().double(), level.labels)[chosen], masks, level.limit)


def joined_masks(features, masks, limit):
    """The masks (k, h, w) bool, those joined whose features (k, d) are alike up to a limit and which touch."""

    def touching(labels, i, j):
        one, two = (masks[labels == label].any(0) for label in (i, j))
        return parts_of(one | two) < parts_of(one) + parts_of(two)

    levels = cluster_levels(features, touching, limit)
    if not levels:
        return list(masks)
    return [masks[levels[-1].labels == label].any(0) for label in range(levels[-1].count)]


def parts_of(mask):
    """Of how many pieces a mask (h, w) bool consists, with neighbours above, below and beside."""
    left, count = {tuple(place) for place in mask.nonzero().tolist()}, 0
    while left:
        count += 1
        edge = [left.pop()]
        while edge:
            row, column = edge.pop()
            for place in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                if place in left:
                    left.remove(place)
                    edge.append(place)
    return count


def _means(rows, labels):
    """The mean of each cluster's rows."""
    count = int(labels.max()) + 1
    sums = torch.zeros(count, rows.shape[1], dtype=rows.dtype).index_add_(0, labels, rows)
    return sums / torch.bincount(labels, minlength=count)[:, None]


def _linked(nearest):
    """(pairs i < j (2, e) whose {i, nearest of i} and {j, nearest of j} meet, in how many members each (e,))."""
    groups = {}
    for i, other in enumerate(nearest.tolist()):
        for place in (i, other):
            groups.setdefault(place, []).append(i)
    shared = Counter(pair for group in groups.values() for pair in combinations(group, 2))
    return torch.tensor(list(shared)).mT, torch.tensor(list(shared.values())).double()


def _components(pairs, count):
    """The number (count,) of each one's connected component, by the first member of each."""
    parent = list(range(count))

    def root(i):
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in pairs:
        first, second = sorted((root(i), root(j)))
        parent[second] = first
    roots = [root(i) for i in range(count)]
    number = {one: k for k, one in enumerate(dict.fromkeys(roots))}
    return torch.tensor([number[one] for one in roots])
