"""Queries and keys of cross-attentions -> where in a picture a word is read, and losses that hold it to a mask."""

import torch

from .masks import nearest_resize


def word_map(q, k, heads, places):
    """A = 1/H sum_h softmax(q_h k_h^T / sqrt(d)) S: where each word is read, (b, n, w) float32, with a gradient.

    q (b, n, c), k (b, m, c), c = H * d; places S (b, m, w): the share of each token of the text in a word, as
    `word_places` gives them.
    """
    q, k = (t.float().unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k))
    attention = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    return attention.mean(1) @ places.to(attention)


def word_places(tokens, length):
    """S (b, length, w): 1 / (number of a word's tokens) at each of its tokens; a word without any has a column of 0.

    tokens: per picture and word the places of its tokens in the text, [[(4,), (6, 7)], ...].
    """
    places = torch.zeros(len(tokens), length, max(map(len, tokens)))
    for row, words in enumerate(tokens):
        for column, own in enumerate(words):
            places[row, list(own), column] = 1 / max(1, len(own))
    return places


def quarter_losses(maps, masks, grid):
    """mean over cells of (mask - A / max A)^2 for each word of each picture (Break-A-Scene, arXiv 2305.16311): (b, w).

    maps: A of each layer (b, n, w), n = h * w of the grid, all of one; of their mean each word's own maximum counts.
    masks (b, w, H, W) in 0..1 come to the grid by nearest.
    """
    mean = torch.stack(tuple(maps)).mean(0).mT
    scaled = mean / mean.amax(-1, keepdim=True)
    return (nearest_resize(masks, grid).to(scaled).flatten(-2) - scaled).square().mean(-1)


def level_losses(groups, masks, full_identity):
    """The sum over groups of layers of mean of a over O + what the second word b does (Mix-of-Show, arXiv 2305.18292).

    groups: {grid (h, w): A of each of its layers, (b, n, 2)}; of their mean each word's maximum is that of the batch.
    masks (b, 1, H, W) in 0..1 come to each grid by nearest; O: the cells where they are 0. b: with full identity the
    mean of (b - mask)^2 over all cells, else its mean over O, as of a. None where a group has no cell outside: nothing
    can be asked of a then.
    """
    total = 0.0
    for grid, maps in groups.items():
        mean = torch.stack(tuple(maps)).mean(0)
        first, second = (mean / mean.amax((0, 1))).unbind(-1)
        mask = nearest_resize(masks, grid).to(mean).flatten(1)
        outside = mask == 0
        if not outside.any():
            return None
        total = total + first[outside].mean()
        total = total + ((second - mask).square().mean() if full_identity else second[outside].mean())
    return total
