"""What PILOT pulls a latent towards: the picture where it is kept, the words in the hole (arXiv 2407.08019)."""

import torch


def background_loss(denoised, picture, keep):
    """1/4 sum over c, h, w of K (x0 - z0)^2, for each image (b,).

    denoised, picture (b, c, h, w); keep (b, h, w): K, 1 where the picture stays.
    """
    return (keep[:, None] * (denoised - picture) ** 2).sum((1, 2, 3)) / 4


def word_share(q, k, words, heads):
    """a_n = mean over heads of the sum over words j of softmax(q k^T / sqrt(d))_nj, for each image (b, n).

    q (b, n, c) of image tokens, k (b, m, c) of text tokens; words: positions in the text.
    """
    q, k = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k))
    shares = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    return shares[..., list(words)].sum(-1).mean(1)


def pull_loss(share, inside):
    """mean of a outside of the hole - mean of a inside, for each image (b,); 0 where there is no inside or no outside.

    share (b, n): a; inside (b, n): 1 for the tokens in the hole.
    """
    inside = inside.to(share)
    within, beyond = inside.sum(1), (1 - inside).sum(1)
    means = (share * (1 - inside)).sum(1) / beyond.clamp(min=1), (share * inside).sum(1) / within.clamp(min=1)
    return torch.where((within > 0) & (beyond > 0), means[0] - means[1], torch.zeros_like(within))
