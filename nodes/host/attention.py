"""The host's attention function, called as the host calls it."""

from functools import cache

import torch
from comfy.ldm.modules import attention as host

from ...kernels.merged_attention import kernel_with_lse
from .calls import attention_overridden, heads_of
from .messages import log_info

# Backends that round keys to 8 bits: extra channels that carry a bias would not survive.
QUANTIZED = ("attention_sage", "attention3_sage")
# The host's functions for a CPU, and for cards with little memory, that compute what PyTorch's own does, more slowly.
BY_HAND = ("attention_sub_quad", "attention_split", "attention_basic")
# From as many rows on the host runs them in turns.
MANY_ROWS = 1 << 15


def plain_attention(q, k, v, options):
    """What the host computes at a block where nothing stands; q (b, n, c), k, v (b, m, c)."""
    return host.optimized_attention(
        q, k, v, heads_of(options), attn_precision=options.get("attn_precision"), transformer_options=options
    )


def exact_attention(options):
    """The host's attention as kernels take it, (q, k, v, heads, mask=None), with the same overrides but no rounding."""
    function = host.optimized_attention
    if getattr(function, "__name__", "") in QUANTIZED:
        function = host.attention_pytorch

    def attention(q, k, v, heads, mask=None):
        precision = options.get("attn_precision")
        return function(q, k, v, heads, mask=mask, attn_precision=precision, transformer_options=options)

    return attention


def torch_attends():
    """Whether the host's function is PyTorch's own, so that its kernels give the same to the bit."""
    return host.optimized_attention is getattr(host, "attention_pytorch", None)


def lse_kernel(q, options):
    """PyTorch's kernel that gives attention with its log-sum-exp (kernels/merged_attention.py), where it computes what
    the host would: where the host's function is PyTorch's own, or on a CPU one of those by hand (the same but for
    rounding), and nobody overrides it; None elsewhere.
    """
    by_hand = q.device.type == "cpu" and getattr(host.optimized_attention, "__name__", "") in BY_HAND
    if not (torch_attends() or by_hand) or attention_overridden(options) or len(q) >= MANY_ROWS:
        return None
    if torch.is_grad_enabled() and q.requires_grad:
        return None
    kernel = kernel_with_lse(q.device, q.dtype, q.shape[-1] // heads_of(options))
    if kernel is None:
        _tell_of_slower_form()
    return kernel


@cache
def _tell_of_slower_form():
    log_info(
        f"this PyTorch ({torch.__version__}) gives no log-sum-exp of attention here, so references are read in a form "
        "that moves more memory; the pictures are the same"
    )
