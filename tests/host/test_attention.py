"""The host's attention function: asked as the host asks it, and never one that rounds the keys that carry a bias."""

import pytest
import torch
from comfy.ldm.modules import attention as host
from support.compare import differ
from support.models import tiny_model
from support.references import draw, picture, with_references

from pack.nodes.host.attention import exact_attention, plain_attention


def rounding(name):
    """An attention of this name that rounds keys to 8 bits, as quantized ones do, and a list of its calls."""
    calls = []

    def attention(q, k, v, heads, *args, **kwargs):
        calls.append(k.shape)
        step = k.abs().max() / 127
        return host.attention_pytorch(q, (k / step).round() * step, v, heads, *args, **kwargs)

    attention.__name__ = name
    return attention, calls


@pytest.mark.parametrize("name", ["attention_sage", "attention3_sage"])
def test_a_bias_is_not_rounded(name, monkeypatch):
    q, k, v = (draw(2, 9, 8, seed=i) for i in range(3))
    options = {"n_heads": 2}
    exact = host.attention_pytorch(q, k, v, 2)
    function, calls = rounding(name)
    monkeypatch.setattr(host, "optimized_attention", function)
    assert torch.equal(exact_attention(options)(q, k, v, 2), exact)
    assert not calls
    # what needs no bias is computed as the user has chosen
    assert differ(plain_attention(q, k, v, options), exact) > 1e-4
    assert calls == [k.shape]


def test_any_other_function_is_the_hosts_choice(monkeypatch):
    q, k, v = (draw(2, 9, 8, seed=i) for i in range(3))
    function, calls = rounding("attention_of_tomorrow")
    monkeypatch.setattr(host, "optimized_attention", function)
    exact_attention({})(q, k, v, 2)
    assert calls == [k.shape]


def test_references_are_read_without_rounding(monkeypatch):
    """MRSA's widened keys, whose further channels are the bias, do not reach the quantized function."""
    patched = with_references(tiny_model("sd15"))
    function, calls = rounding("attention_sage")
    monkeypatch.setattr(host, "optimized_attention", function)
    picture(patched, steps=1, cfg=1.0)
    widths = {block.attn1.to_q.out_features for block in blocks(patched)}
    assert calls and {shape[-1] for shape in calls} <= widths


def blocks(model):
    return [m for m in model.model.diffusion_model.modules() if isinstance(m, host.BasicTransformerBlock)]
