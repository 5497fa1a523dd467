"""Attention that learns fast on a CPU: some images at a time, so that their maps stay in the cache, in half precision.

For training only, where the host's spends most of its time in the way back.
"""

import contextlib
from unittest.mock import patch

import torch

# elements of the maps that are worked on at a time: half a megabyte in half precision
AT_A_TIME = 2**18


def maps_of(q, k, mask):
    """softmax(q k') of scaled queries (b, heads, n, d), keys (b, heads, m, d) and a mask for (n, m)."""
    scores = q @ k.transpose(-1, -2)
    if mask is not None:
        scores += mask
    return scores.softmax(-1)


class Attention(torch.autograd.Function):
    """softmax(q k' / sqrt(d)) v of (b, heads, n, d); the maps are made again on the way back."""

    @staticmethod
    def forward(context, q, k, v, mask):
        context.count = max(1, AT_A_TIME // (q.shape[1] * q.shape[2] * k.shape[2]))
        context.scale = q.shape[-1] ** -0.5
        q, k, v = (q * context.scale).contiguous(), k.contiguous(), v.contiguous()
        context.save_for_backward(q, k, v, mask)
        out = torch.empty_like(v[..., :1, :]).expand(*q.shape[:-1], v.shape[-1]).contiguous()
        # autocast would take the maps to single precision
        with torch.autocast(q.device.type, enabled=False):
            for part, q_, k_, v_ in zip(*(t.split(context.count) for t in (out, q, k, v)), strict=True):
                torch.matmul(maps_of(q_, k_, mask), v_, out=part)
        return out

    @staticmethod
    def backward(context, gradient):
        q, k, v, mask = context.saved_tensors
        made = [torch.empty_like(t) for t in (q, k, v)]
        parts = (t.split(context.count) for t in (gradient.contiguous(), q, k, v, *made))
        for gradient_, q_, k_, v_, of_q, of_k, of_v in zip(*parts, strict=True):
            maps = maps_of(q_, k_, mask)
            torch.matmul(maps.transpose(-1, -2), gradient_, out=of_v)
            of_maps = gradient_ @ v_.transpose(-1, -2)
            of_scores = torch._softmax_backward_data(of_maps, maps, -1, maps.dtype)
            torch.matmul(of_scores, k_, out=of_q)
            torch.matmul(of_scores.transpose(-1, -2), q_, out=of_k)
        of_q, of_k, of_v = made
        return of_q * context.scale, of_k, of_v, None


def attend(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, **_):
    """As torch.nn.functional.scaled_dot_product_attention, for what the host asks of it."""
    if is_causal or dropout_p:
        raise ValueError("Training attention takes a mask of numbers, no dropout and no is_causal.")
    return Attention.apply(q, k, v, attn_mask)


def learning(device):
    """The attention that learns fastest on the device, within this context."""
    if device.startswith("cuda"):
        return contextlib.nullcontext()
    return patch("torch.nn.functional.scaled_dot_product_attention", attend)
