"""Attention to two sets of keys as two plain ones, merged by what their softmaxes divide by (log-sum-exp)."""

from functools import lru_cache, partial

import torch

# PyTorch's own kernels that tell the log-sum-exp, by kind of device, the fastest first.
_KERNELS = {
    "cpu": ("_scaled_dot_product_flash_attention_for_cpu",),
    "cuda": ("_scaled_dot_product_flash_attention", "_scaled_dot_product_efficient_attention"),
}
# Relative error of a kernel that is believed: the rounding of bfloat16, and more.
_BELIEVED = 0.05


@lru_cache(maxsize=64)
def kernel_with_lse(device, dtype, d):
    """A kernel (q, k, v (b, h, n, d)) -> (attention, log-sum-exp (b, h, n) float32) for heads of d, None without one.

    They are private to PyTorch: one that is missing, refuses or gives anything else than the formula is left out.
    """
    # tensors without data, on which FLOPs and bytes are counted, go the way of the CPU
    device = torch.device("cpu") if device.type == "meta" else device
    for name in _KERNELS.get(device.type, ()):
        kernel = partial(_call, name)
        try:
            if _is_attention(kernel, device, dtype, d):
                return kernel
        except (AttributeError, RuntimeError, TypeError):
            continue
    return None


def attention_with_lse(kernel, q, k, v, heads):
    """softmax(q·kᵀ/√d)·v (b, n, c) and its log-sum-exp (b, h, n): q (b, n, c), k, v (b, m, c)."""
    out, lse = kernel(*(t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v)))
    return out.transpose(1, 2).flatten(2), lse


def merged_attention(kernel, q, own, own_lse, groups, *, heads, out=None):
    """softmax([q·kᵀ/√d, q·k_iᵀ/√d + bias_i + region_i])·[v, v_i], from plain attention to k and v.

    q (b, n, c); own (b, n, c) and own_lse (b, h, n): attention to k and v and its log-sum-exp; groups: [(k_i (m, c),
    v_i (m, c), bias_i, region_i)], shared by the batch, where bias_i is a number and region_i (n,) or None. out: where
    the result goes, which may be `own`; a new tensor if None. Each set's part of the whole softmax is
    e^lse_i / sum of e^lse_j, so that no channel carries a bias and no key is copied (FlashAttention,
    arXiv 2205.14135, section 3.1).
    """
    b, n, c = q.shape
    # the queries of all rows in one: the references need not be repeated
    queries = q.reshape(1, b * n, c)
    total, result = own_lse, own
    for number, (k, v, bias, region) in enumerate(groups, 1):
        seen, lse = attention_with_lse(kernel, queries, k[None], v[None], heads)
        lse = lse[0].unflatten(-1, (b, n)).transpose(0, 1)
        more = (lse - total).add_(bias)
        if region is not None:
            more.add_(region)
        share = more.sigmoid().transpose(1, 2)[..., None].to(own.dtype)
        parts = (t.reshape(b, n, heads, -1) for t in (result, seen))
        into = None if out is None else out.unflatten(-1, (heads, -1))
        result = torch.lerp(*parts, share, out=into).flatten(2)
        if number < len(groups):
            total = torch.logaddexp(total, total + more)
    return result


def _call(name, q, k, v):
    kernel = getattr(torch.ops.aten, name)
    if "efficient" in name:
        out, lse = kernel(q, k, v, None, True)[:2]
        # it counts queries in steps of 32
        return out, lse[..., : q.shape[2]]
    return kernel(q, k, v)[:2]


def _is_attention(kernel, device, dtype, d):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, n, 2 * d, generator=generator).to(device, dtype) for n in (5, 7, 7))
    out, lse = attention_with_lse(kernel, q, k, v, 2)
    q, k, v = (t.cpu().double().unflatten(-1, (2, d)).transpose(1, 2) for t in (q, k, v))
    logits = q @ k.mT * d**-0.5
    expected = (logits.softmax(-1) @ v).transpose(1, 2).flatten(2), logits.logsumexp(-1)
    pairs = zip((out, lse), expected, strict=True)
    return all((one.cpu().double() - true).norm() <= _BELIEVED * true.norm() for one, true in pairs)
