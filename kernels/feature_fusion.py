"""Masked blending of features between the rows of a batch (Concept Conductor, arXiv 2408.03632)."""

import torch


def fuse(base, features, masks):
    """h <- m_i * h_i + (1 - m_i) * h for i = 1..N in order: where masks overlap, the last one wins. In place.

    base (..., n, c): becomes the blend, and is returned; features: N tensors of its shape; masks: N tensors (..., n)
    bool, leading axes broadcast.
    """
    for feature, mask in zip(features, masks, strict=True):
        torch.where(mask[..., None], feature, base, out=base)
    return base
