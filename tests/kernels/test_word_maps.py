"""Maps of words and the losses that hold them to masks, against loops written from the papers' formulas."""

import math

import pytest
import torch
from support.compare import close, relative

from pack.kernels.masks import nearest_resize
from pack.kernels.word_maps import level_losses, quarter_losses, word_map, word_places


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def slow_map(q, k, heads, tokens):
    """One number at a time."""
    b, n, c = q.shape
    d = c // heads
    found = torch.zeros(b, n, len(tokens[0]))
    for row in range(b):
        for cell in range(n):
            for head in range(heads):
                own = slice(head * d, (head + 1) * d)
                scores = [float(q[row, cell, own] @ key[own]) / math.sqrt(d) for key in k[row]]
                total = sum(math.exp(score) for score in scores)
                for word, places in enumerate(tokens[row]):
                    shares = [math.exp(scores[place]) / total for place in places]
                    found[row, cell, word] += sum(shares) / len(shares) / heads
    return found


def test_a_word_of_two_tokens_is_the_mean_of_their_columns():
    q, k = noise(2, 6, 8), noise(2, 5, 8, seed=1)
    tokens = [[(1,), (2, 3)], [(4,), (1, 2)]]
    found = word_map(q, k, 2, word_places(tokens, 5))
    close(found, slow_map(q, k, 2, tokens), 1e-6)


@torch.inference_mode(False)
@torch.enable_grad()
def test_maps_carry_a_gradient_to_the_keys():
    q, k = noise(1, 6, 8), noise(1, 5, 8, seed=1).requires_grad_()

    def loss(keys):
        maps = [word_map(q, keys, 2, word_places([[(1,)]], 5))]
        return quarter_losses(maps, torch.ones(1, 1, 4, 6), (2, 3)).sum()

    loss(k).backward()
    step = torch.zeros(1, 5, 8)
    step[0, 2, 3] = 1e-2
    by_hand = float(loss(k.detach() + step) - loss(k.detach() - step)) / 2e-2
    assert float(k.grad[0, 2, 3]) == pytest.approx(by_hand, rel=1e-2)


def test_each_word_is_scaled_by_its_own_maximum_in_its_own_picture():
    maps = [noise(2, 6, 3, seed=seed).abs() for seed in (2, 3)]
    masks = (noise(2, 3, 8, 12, seed=4) > 0).float()
    found = quarter_losses(maps, masks, (2, 3))
    for row in range(2):
        for word in range(3):
            mean = (maps[0][row, :, word] + maps[1][row, :, word]) / 2
            mask = masks[row, word, ::4, ::4].flatten()
            wanted = sum(float(mask[i] - mean[i] / max(mean)) ** 2 for i in range(6)) / 6
            assert float(found[row, word]) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("full", [False, True])
def test_levels_share_the_maximum_of_the_batch(full):
    groups = {(2, 3): [noise(2, 6, 2, seed=5).abs()], (1, 2): [noise(2, 2, 2, seed=seed).abs() for seed in (6, 7)]}
    mask = torch.tensor([[1, 0, 0.5], [0, 0, 1.0]])[None, None].expand(2, -1, -1, -1)
    wanted = 0.0
    for grid, maps in groups.items():
        mean = sum(maps) / len(maps)
        own = nearest_resize(mask, grid).flatten(1)
        outside, second = [], []
        for row in range(2):
            for cell in range(own.shape[1]):
                a, b = (float(mean[row, cell, word] / mean[..., word].max()) for word in (0, 1))
                if own[row, cell] == 0:
                    outside.append(a)
                if full or own[row, cell] == 0:
                    second.append((b - float(own[row, cell])) ** 2 if full else b)
        wanted += sum(outside) / len(outside) + sum(second) / len(second)
    assert float(level_losses(groups, mask, full)) == pytest.approx(wanted, rel=1e-5)


def test_a_mask_of_the_whole_picture_asks_nothing_of_the_levels():
    maps = {(2, 3): [noise(1, 6, 2).abs()]}
    assert level_losses(maps, torch.ones(1, 1, 4, 6), True) is None


def test_the_first_place_of_words_and_none():
    places = word_places([[(2,), ()]], 4)
    assert relative(places[0], torch.tensor([[0, 0], [0, 0], [1, 0], [0, 0.0]])) == 0
