"""PILOT's losses against slow loops."""

import math

import torch

from pack.kernels.inpainting_loss import background_loss, pull_loss, word_share


def draw(*size, seed=0):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def test_background_loss():
    found, picture, keep = draw(2, 4, 3, 5), draw(2, 4, 3, 5, seed=1), (draw(2, 3, 5, seed=2) > 0).float()
    for image, loss in enumerate(background_loss(found, picture, keep)):
        slow = sum(
            float(keep[image, h, w]) * float(found[image, c, h, w] - picture[image, c, h, w]) ** 2
            for c in range(4)
            for h in range(3)
            for w in range(5)
        )
        assert abs(float(loss) - slow / 4) < 1e-4


def test_word_share():
    q, k, heads = draw(1, 6, 8), draw(1, 5, 8, seed=1), 2
    found = word_share(q, k, (1, 3), heads)
    for n in range(6):
        total = 0.0
        for head in range(heads):
            part = slice(4 * head, 4 * head + 4)
            scores = [math.exp(float(q[0, n, part] @ k[0, j, part]) / 2) for j in range(5)]
            total += (scores[1] + scores[3]) / sum(scores) / heads
        assert abs(float(found[0, n]) - total) < 1e-5


def test_pull_loss():
    share = torch.tensor([[0.1, 0.2, 0.3, 0.4]])
    assert abs(float(pull_loss(share, torch.tensor([[True, False, False, True]]))) - (0.25 - 0.25)) < 1e-6
    assert abs(float(pull_loss(share, torch.tensor([[False, False, False, True]]))) - (0.2 - 0.4)) < 1e-6
    assert float(pull_loss(share, torch.ones(1, 4, dtype=torch.bool))) == 0
    assert float(pull_loss(share, torch.zeros(1, 4, dtype=torch.bool))) == 0
