"""Image tokens attend to their own tokens and to the kept tokens of reference pictures, in one softmax."""

import torch
import torch.nn.functional as F
from einops import rearrange

# Fused attention kernels take head sizes in steps of 8, up to 256.
HEAD_STEP, HEAD_LIMIT = 8, 256
# exp(-1000) is 0 in every dtype, and 1000·√256 still fits into float16.
_NEVER = -1000.0


def multi_reference_attention(q, k, v, ref_k, ref_v, ref_bias, *, heads, region=None, attention=None):
    """softmax([q·kᵀ/√d, q·ref_kᵀ/√d + ref_bias + region])·[v, ref_v]

    q (b, n, c) or (n, c) of the image, k, v (b, m, c) its own keys and values; ref_k, ref_v (..., c) and ref_bias (...)
    of the references' tokens, shared by the batch, any leading axes. A bias of -inf (or below -1000) removes a token.
    region: None, or (at_query (n, s), of_token (...) int64): a reference token of segment s is seen by query i with
    at_query[i, s] added to its logit (the ln of the region there, -inf outside).
    attention: (q, k, v, heads, mask=None) -> (b, n, c), plain attention scaled by 1/√d; torch's by default.
    Returns the shape of q, before the output projection. FreeCustom (arXiv 2405.13870), section 3.2, in the form of
    its published code: a reference's weight is added to the logit.
    """
    attention = attention or torch_attention
    if q.ndim == 2:
        q, k, v = q[None], k[None], v[None]
        refs = ref_k, ref_v, ref_bias
        return multi_reference_attention(q, k, v, *refs, heads=heads, region=region, attention=attention)[0]
    b, n, c = q.shape
    d = c // heads
    ref_k, ref_v = (t.reshape(-1, c).expand(b, -1, c) for t in (ref_k, ref_v))
    columns = 2 + (2 * region[0].shape[1] if region else 0)
    wide = -(-(d + columns) // HEAD_STEP) * HEAD_STEP
    if wide > HEAD_LIMIT:
        bias = _bias_matrix(ref_bias, region, n)
        mask = F.pad(bias, (k.shape[1], 0)).to(q.dtype)
        return attention(q, torch.cat([k, ref_k], 1), torch.cat([v, ref_v], 1), heads, mask=mask)

    # attention will divide by √wide: q is stretched for what should be divided by √d, the bias for what should not
    own, wide_q = k.shape[1], q.new_empty(b, n, heads, wide)
    _stretch(q.unflatten(-1, (heads, d)), (wide / d) ** 0.5, wide_q[..., :d])
    wide_k, wide_v = _widened(k, ref_k, heads, wide), _widened(v, ref_v, heads, wide)
    of_queries, of_tokens = _bias_columns(ref_bias, region, wide - d, wide**0.5, q.dtype)
    wide_q[..., d:] = of_queries[:, None]
    wide_k[:, :own, :, d:] = 0
    wide_k[:, own:, :, d:] = of_tokens[:, None]
    # what comes of these is cut off, but some functions look at whole heads
    wide_v[..., d:] = 0
    out = attention(wide_q.flatten(2), wide_k.flatten(2), wide_v.flatten(2), heads)
    return out.unflatten(-1, (heads, wide))[..., :d].flatten(2)


def torch_attention(q, k, v, heads, mask=None):
    """softmax(q·kᵀ/√d + mask)·v over (b, n, c) tensors; mask (n, m) or None."""
    q, k, v = (rearrange(t, "b n (h d) -> b h n d", h=heads) for t in (q, k, v))
    return rearrange(F.scaled_dot_product_attention(q, k, v, attn_mask=mask), "b h n d -> b n (h d)")


def _bias_matrix(ref_bias, region, n):
    bias = ref_bias.flatten().float().clamp(min=_NEVER).expand(n, -1)
    if region is None:
        return bias
    at_query, of_token = region
    return bias + at_query.float().clamp(min=_NEVER)[:, of_token.flatten()]


def _bias_columns(ref_bias, region, width, stretch, dtype):
    """`width` channels of q (n or 1, width) and of the reference keys (m, width): products are the bias by `stretch`.

    A mask tensor would switch fused attention kernels off; a few more channels do not.
    """
    of_tokens = ref_bias.new_zeros(ref_bias.numel(), width, dtype=dtype)
    of_tokens[:, :2] = _two_parts(ref_bias.flatten()[:, None], stretch, dtype)
    if region is None:
        of_queries = torch.zeros(1, width, dtype=dtype, device=ref_bias.device)
        of_queries[:, :2] = 1
        return of_queries, of_tokens
    at_query, of_token = region
    segments = at_query.shape[1]
    of_queries = torch.zeros(len(at_query), width, dtype=dtype, device=ref_bias.device)
    of_queries[:, :2] = 1
    of_queries[:, 2 : 2 + 2 * segments] = _two_parts(at_query, stretch, dtype)
    shown = of_token.flatten()[:, None] == torch.arange(segments, device=of_token.device).repeat(2)
    of_tokens[:, 2 : 2 + 2 * segments] = shown
    return of_queries, of_tokens


def _widened(own, refs, heads, wide):
    """Both (b, n, c) behind each other as (b, n + m, h, wide), written once; behind each head there is room."""
    b, n, c = own.shape
    out = own.new_empty(b, n + refs.shape[1], heads, wide)
    out[:, :n, :, : c // heads] = own.unflatten(-1, (heads, -1))
    out[:, n:, :, : c // heads] = refs.unflatten(-1, (heads, -1))
    return out


def _stretch(t, factor, out):
    if torch.is_grad_enabled():
        out[:] = t * factor
    else:
        torch.mul(t, factor, out=out)


def _two_parts(bias, stretch, dtype):
    # the rounded value and its rest: half precision then carries a bias with twice its digits
    exact = bias.float().clamp(min=_NEVER) * stretch
    rounded = exact.to(dtype)
    return torch.cat([rounded, (exact - rounded.float()).to(dtype)], 1)
