"""Image-prompt branches of a cross-attention: tokens of pictures beside the text, each object in its own place."""

import torch
import torch.nn.functional as F
from einops import rearrange

from .object_shares import NEVER


def text_gate(text, vector):
    """g(p) = sigmoid(u·text(p)) / mean over p of the same: more image where the text attention asks for it.

    text (b, n, c): the text attention before the output projection; vector u (1, c). Returns (b, n) float32 of mean 1.
    MIP-Adapter (arXiv 2409.17920), `text_to_weight` of its published code.
    """
    gate = (text @ vector.to(text).mT)[..., 0].sigmoid()
    return gate / gate.mean(1, keepdim=True, dtype=torch.float32)


def picture_attention(q, k, v, lengths, *, heads):
    """softmax(q·k_iᵀ/√d)·v_i for each picture i: a (b, n, c) for each, before the output projection.

    q (b, n, c); k, v (m, c), the pictures' tokens one after another, `lengths` of each. Fused attention with the
    pictures as its batch and all queries in one row, so that nothing of q is copied.
    """
    b, n, c = q.shape
    if len(set(lengths)) > 1:
        parts = zip(k.split(lengths), v.split(lengths), strict=True)
        return [part for one in parts for part in picture_attention(q, *one, [len(one[0])], heads=heads)]
    r = len(lengths)
    q = q.reshape(1, b * n, heads, -1).transpose(1, 2).expand(r, -1, -1, -1)
    k, v = (t.unflatten(0, (r, -1)).unflatten(-1, (heads, -1)).transpose(1, 2) for t in (k, v))
    out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    return out.reshape(r, b, n, c).unbind()


def joint_attention(q, k, v, lengths, *, heads, log_regions=None):
    """(attention (b, n, c) to the tokens of all pictures in one softmax, the share of each in it (b, r, n) float32).

    As `picture_attention`, but for log_regions (r, n), which are added to the logits.
    """
    probabilities = image_probabilities(q, k, heads=heads, lengths=lengths, joint=True, log_regions=log_regions)
    return image_values(probabilities, v, None, lengths=lengths), picture_shares(probabilities, lengths)


def add_part(out, part, factor=None, value=1.0):
    """out + value · f(p) · part, in place: out, part (b, n, c); f (b, n) or (1, n), float32, or None for 1."""
    if factor is None:
        return out.add_(part, alpha=value)
    return out.addcmul_(part, factor[..., None], value=value)


def image_probabilities(q, k, *, heads, lengths=None, joint=False, log_regions=None):
    """softmax over image tokens of q·k/√d: one softmax per picture, or a joint one over the tokens of all.

    q (b, n, c); k (r, t, c) shared by the batch or (b, r, t, c), or with lengths (m, c): the pictures' tokens one
    after another, `lengths` of each. joint: the softmax of an IP-Adapter with concatenated tokens, log_regions (r, n)
    then added to the logits. Returns (b, h, n, r, t), or (b, h, n, m), float32.
    """
    if lengths is None:
        r, t = k.shape[-3:-1]
        return image_probabilities(
            q, k.flatten(-3, -2), heads=heads, lengths=[t] * r, joint=joint, log_regions=log_regions
        ).unflatten(-1, (r, t))
    d = k.shape[-1] // heads
    q = rearrange(q, "b n (h d) -> b h n d", h=heads)
    k = rearrange((k if k.ndim == 3 else k[None]) * d**-0.5, "b m (h d) -> b h d m", h=heads)
    logits = (q @ k).float()
    if not joint:
        return _of_each(logits, lengths, lambda part: part.softmax(-1))
    if log_regions is not None:
        logits = logits + _for_tokens(log_regions.mT[:, :, None].clamp(min=NEVER), lengths)
    return logits.softmax(-1)


def picture_shares(probabilities, lengths):
    """The share of each picture (b, r, n) in joint probabilities (b, h, n, m), the mean over heads."""
    mean = probabilities.mean(1)
    if len(set(lengths)) == 1:
        return mean.unflatten(-1, (len(lengths), -1)).sum(-1).mT
    return torch.stack([part.sum(-1) for part in mean.split(lengths, -1)], 1)


def image_values(probabilities, v, factors, *, lengths=None):
    """Σ_i f_i(p)·Σ_t P_i(p, t)·v_i(t): the values of all pictures in one product, nothing stored per picture.

    probabilities (b, h, n, r, t) with v (r, t, c) or (b, r, t, c), or with lengths (b, h, n, m) with v (m, c) or
    (b, m, c); factors f, broadcast to (b, r, n), or None for 1. Returns (b, n, c) in the dtype of v, before the output
    projection.
    """
    if lengths is None:
        r, t = v.shape[-3:-1]
        return image_values(probabilities.flatten(-2), v.flatten(-3, -2), factors, lengths=[t] * r)
    heads = probabilities.shape[1]
    if factors is not None:
        probabilities = probabilities * _for_tokens(factors.mT[..., None, :, :, None], lengths)
    v = rearrange(v if v.ndim == 3 else v[None], "b m (h d) -> b h m d", h=heads)
    return rearrange(probabilities.to(v.dtype) @ v, "b h n d -> b n (h d)")


def _of_each(values, lengths, function):
    """A function of the last axis (..., m), for each picture's part of it."""
    if len(set(lengths)) == 1:
        return function(values.unflatten(-1, (len(lengths), lengths[0]))).flatten(-2)
    return torch.cat([function(part) for part in values.split(lengths, -1)], -1)


def _for_tokens(values, lengths):
    """One value per picture (..., r, 1) as one per token (..., m), or (..., 1) where all have the same."""
    if values.shape[-2] == 1:
        return values[..., 0]
    if len(set(lengths)) == 1:
        return values.expand(*values.shape[:-1], lengths[0]).flatten(-2)
    return values[..., 0].repeat_interleave(torch.tensor(lengths, device=values.device), -1)
