"""The host's attention function, called as the host calls it."""

from comfy.ldm.modules import attention as host

from .calls import heads_of

# Backends that round keys to 8 bits: extra channels that carry a bias would not survive.
QUANTIZED = ("attention_sage", "attention3_sage")


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
