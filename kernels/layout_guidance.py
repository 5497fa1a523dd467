"""Self-attention keys -> how far a layout is from that of a reference picture (Concept Conductor, arXiv 2408.03632)."""

import torch


def layout_loss(keys, reference, weights, foreground=None):
    """L = sum_p w_p * mean over (n, c) of sum_b F * (k_p[b] - k_ref)^2

    keys (p, b, n, c): of p paths and b images; reference (n, c): of the layout picture, in float32; weights (p,);
    foreground F (n,) or (b, n): how much each token counts (how many masks cover it), None: all count once. The mean
    still divides by all n * c. Returns a float32 scalar. The sum over images keeps the gradient of each image free of
    the others.
    """
    squares = (keys.to(torch.promote_types(keys.dtype, torch.float32)) - reference) ** 2
    if foreground is not None:
        squares = squares * foreground[..., None]
    return (weights * squares.sum(1).mean((1, 2))).sum()
