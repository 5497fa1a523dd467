"""Multi-reference attention against a slow loop written from the formula, and against recorded values."""

import math

import pytest
import torch
from einops import rearrange
from support.compare import relative
from support.golden_data import case

from pack.kernels import reference_attention as kernel
from pack.kernels.reference_attention import multi_reference_attention

# FreeCustom's kernel case may differ by this much, relative, in each dtype
LIMITS = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}


def slow(q, k, v, ref_k, ref_v, ref_bias, heads, region=None):
    """One query and head at a time, from the formula, in double precision."""
    n, c = q.shape
    d = c // heads
    out = torch.zeros(n, c, dtype=torch.float64)
    for head in range(heads):
        part = slice(head * d, (head + 1) * d)
        for i in range(n):
            weights, values = [], []
            for j in range(len(k)):
                weights.append(math.exp(float(q[i, part].double() @ k[j, part].double()) / math.sqrt(d)))
                values.append(v[j, part].double())
            for j in range(len(ref_k)):
                factor = math.exp(float(ref_bias[j]))
                if region is not None:
                    factor *= math.exp(float(region[0][i, region[1][j]]))
                similarity = float(q[i, part].double() @ ref_k[j, part].double()) / math.sqrt(d)
                weights.append(factor * math.exp(similarity))
                values.append(ref_v[j, part].double())
            out[i, part] = sum(w * value for w, value in zip(weights, values, strict=True)) / sum(weights)
    return out


def inputs(n=9, m=7, own=None, c=12, seed=0):
    g = torch.Generator().manual_seed(seed)
    draw = lambda *size: torch.randn(size, generator=g)  # noqa: E731
    return draw(n, c), draw(own or n, c), draw(own or n, c), draw(m, c), draw(m, c), draw(m) * 3


@pytest.mark.parametrize("heads", [1, 2, 3])
@pytest.mark.parametrize("own", [None, 5])
def test_formula(heads, own):
    args = inputs(own=own)
    assert relative(multi_reference_attention(*args, heads=heads), slow(*args, heads)) < 1e-6


@pytest.mark.parametrize("limit", [256, 0], ids=["channels", "mask"])
def test_regions(limit, monkeypatch):
    monkeypatch.setattr(kernel, "HEAD_LIMIT", limit)
    args = inputs()
    region = torch.rand(9, 3).log(), torch.tensor([0, 0, 1, 1, 1, 2, 2])
    region[0][4, 1] = region[0][5, 0] = -math.inf
    assert relative(multi_reference_attention(*args, heads=2, region=region), slow(*args, 2, region)) < 1e-6


@pytest.mark.parametrize("limit", [256, 0], ids=["channels", "mask"])
@pytest.mark.parametrize("dtype", LIMITS, ids=str)
def test_recorded_values(limit, dtype, monkeypatch):
    monkeypatch.setattr(kernel, "HEAD_LIMIT", limit)
    golden, params = case("mrsa/kernel_3refs")
    own = [rearrange(golden[name], "h n d -> n (h d)").to(dtype) for name in ("q", "k_own", "v_own")]
    refs = [rearrange(golden[name], "r h n d -> r n (h d)").to(dtype) for name in ("k_ref", "v_ref")]
    out = multi_reference_attention(*own, *refs, golden["bias"], heads=params["heads"])
    assert out.dtype == dtype
    assert relative(out, golden["out"]) < LIMITS[dtype]
    # dropping the masked tokens beforehand is the same
    kept = (golden["bias"] > -1e20).flatten()
    refs = [t.flatten(0, 1)[kept] for t in refs]
    gathered = multi_reference_attention(*own, *refs, golden["bias"].flatten()[kept], heads=params["heads"])
    assert relative(gathered, out) < LIMITS[dtype]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("bias", [-20.0, -2.5, 3.1, 20.0])
@pytest.mark.parametrize("d", [40, 64, 80, 160])
def test_half_precision_is_no_worse_than_plain_attention(dtype, bias, d):
    """The bias costs no precision: the error is at most twice that of attention that needs no bias."""
    q, k, v, ref_k, ref_v, _ = inputs(n=40, m=30, c=2 * d, seed=d)
    ref_bias = torch.full((30,), bias)
    exact = multi_reference_attention(*(t.double() for t in (q, k, v, ref_k, ref_v)), ref_bias, heads=2)
    half = [t.to(dtype) for t in (q, k, v, ref_k, ref_v)]
    error = relative(multi_reference_attention(*half, ref_bias, heads=2), exact)
    q, k, v = q[None], torch.cat([k, ref_k])[None], torch.cat([v, ref_v])[None]
    plain = kernel.torch_attention(*(t.double() for t in (q, k, v)), 2)
    bare = relative(kernel.torch_attention(*(t.to(dtype) for t in (q, k, v)), 2), plain)
    assert error < 2 * max(bare, torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("weight", [3.0, 20.0])
@pytest.mark.parametrize("d", [40, 64, 80, 160])
def test_half_precision_tells_biases_apart(dtype, weight, d):
    """Biases ln m + weight of a soft mask m: equal ones cancel where references outweigh the picture, these do not.

    The error is at most a fifth larger than that of attention without a bias. Rounded biases would add a half at
    weight 3, and nine times as much at 20.
    """
    q, k, v, ref_k, ref_v, _ = inputs(n=40, m=30, c=2 * d, seed=d)
    ref_bias = torch.rand(30, generator=torch.Generator().manual_seed(d)).log() + weight
    exact = multi_reference_attention(*(t.double() for t in (q, k, v, ref_k, ref_v)), ref_bias, heads=2)
    half = [t.to(dtype) for t in (q, k, v, ref_k, ref_v)]
    error = relative(multi_reference_attention(*half, ref_bias, heads=2), exact)
    own = q[None], torch.cat([k, ref_k])[None], torch.cat([v, ref_v])[None]
    plain = kernel.torch_attention(*(t.double() for t in own), 2)
    bare = relative(kernel.torch_attention(*(t.to(dtype) for t in own), 2), plain)
    assert error < 1.2 * bare


def test_a_removed_token_is_not_there():
    q, k, v, ref_k, ref_v, ref_bias = inputs()
    ref_bias[2:5] = -math.inf
    kept = [0, 1, 5, 6]
    fewer = multi_reference_attention(q, k, v, ref_k[kept], ref_v[kept], ref_bias[kept], heads=2)
    torch.testing.assert_close(multi_reference_attention(q, k, v, ref_k, ref_v, ref_bias, heads=2), fewer)


def test_no_tokens_is_plain_attention():
    q, k, v, ref_k, ref_v, ref_bias = inputs()
    out = multi_reference_attention(q, k, v, ref_k[:0], ref_v[:0], ref_bias[:0], heads=2)
    torch.testing.assert_close(out, kernel.torch_attention(q[None], k[None], v[None], 2)[0])


def test_a_batch_shares_its_references():
    q, k, v, *refs = inputs()
    batch = [torch.stack([t, t.flip(0)]) for t in (q, k, v)]
    out = multi_reference_attention(*batch, *refs, heads=2)
    for row in range(2):
        torch.testing.assert_close(out[row], multi_reference_attention(*(t[row] for t in batch), *refs, heads=2))


def test_the_order_of_references_does_not_matter():
    q, k, v, ref_k, ref_v, ref_bias = inputs()
    order = torch.randperm(len(ref_k))
    out = multi_reference_attention(q, k, v, ref_k, ref_v, ref_bias, heads=2)
    shuffled = multi_reference_attention(q, k, v, ref_k[order], ref_v[order], ref_bias[order], heads=2)
    torch.testing.assert_close(out, shuffled)


def test_inputs_stay_as_they_are():
    args = inputs()
    before = [t.clone() for t in args]
    multi_reference_attention(*args, heads=2)
    assert all(torch.equal(a, b) for a, b in zip(args, before, strict=True))


def test_gradients_flow():
    with torch.inference_mode(False):
        args = [t.clone().requires_grad_() for t in inputs()]
        multi_reference_attention(*args, heads=2).square().sum().backward()
        assert all(t.grad.abs().sum() > 0 for t in args)
