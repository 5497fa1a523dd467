"""Queries and keys of one attention -> which token looks at which, the mean over its heads."""

import math

import torch

# Entries of the largest buffer that is held beside the map.
_CHUNK = 1 << 24


def head_mean_map(q, k, heads):
    """A = 1/H sum_h softmax(q_h k_h^T / sqrt(d)): (b, n, m) float32.

    q (b, n, c), k (b, m, c), c = H * d. Head by head in chunks of queries, so that nothing of the size heads * n * m is
    ever held.
    """
    n, m = q.shape[1], k.shape[1]
    out = torch.zeros(len(q), n, m, dtype=torch.float32, device=q.device)
    scale = 1 / math.sqrt(q.shape[-1] // heads)
    step = max(1, _CHUNK // m)
    for row, (q_row, k_row) in enumerate(zip(q.unflatten(-1, (heads, -1)), k.unflatten(-1, (heads, -1)), strict=True)):
        for head in range(heads):
            key = k_row[:, head].float().mT * scale
            for start in range(0, n, step):
                part = slice(start, start + step)
                out[row, part] += (q_row[part, head].float() @ key).softmax(-1)
    return out.div_(heads)
