"""k-means (Lloyd), all restarts in one batch of matrix products."""

import torch

SEED = 123
ITERATIONS = 100
# The mean shift of the centres at which a restart has arrived.
TOLERANCE = 1e-4


def kmeans(rows, k, restarts=100):
    """Labels (n,) int64 of n points, rows (n, d): the restart with least sum of squared distances.

    Euclidean; the first centres of each restart are k different points, drawn uniformly with a fixed seed, so that
    equal points give equal labels. Distances are |x|^2 - 2 x.c + |c|^2 in float32: buffers restarts * n * k, never
    restarts * n * k * d. k is at most n.
    """
    x = rows.float()
    n, k = len(x), min(k, len(x))
    generator = torch.Generator().manual_seed(SEED)
    first = torch.stack([torch.randperm(n, generator=generator)[:k] for _ in range(restarts)])
    centres = x[first.to(x.device)]
    squares = (x * x).sum(-1)
    moving = torch.arange(restarts, device=x.device)
    for _ in range(ITERATIONS):
        labels, _ = _nearest(x, squares, centres[moving])
        moved = _means(x, labels, centres[moving])
        shift = (moved - centres[moving]).norm(dim=-1).mean(-1)
        centres[moving] = moved
        # the centres of all restarts move until the last has arrived; one that stands still has nothing to compute
        moving = moving[shift > 0]
        if not len(moving) or (shift < TOLERANCE).all():
            break
    labels, distances = _nearest(x, squares, centres)
    return labels[distances.sum(-1).argmin()]


def _nearest(x, squares, centres):
    """labels (r, n) and squared distances (r, n) to the nearest of the centres (r, k, d)."""
    products = torch.einsum("nd,rkd->rnk", x, centres)
    distances = squares[:, None] - 2 * products + (centres * centres).sum(-1)[:, None]
    nearest = distances.min(-1)
    return nearest.indices, nearest.values.clamp(min=0)


def _means(x, labels, centres):
    """The centres (r, k, d) of the points with each label; a centre that has lost all its points stays."""
    members = torch.nn.functional.one_hot(labels, centres.shape[1]).to(x)
    counts = members.sum(1)[..., None]
    means = members.mT @ x / counts.clamp(min=1)
    return torch.where(counts > 0, means, centres)
