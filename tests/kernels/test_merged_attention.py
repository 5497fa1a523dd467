"""Attention merged by log-sum-exp against the plain form, and kernels that are not there or not to be believed."""

import math

import pytest
import torch
from bench.launch_counter import Counter
from support.compare import relative

from pack.kernels import merged_attention as kernels
from pack.kernels.merged_attention import attention_with_lse, kernel_with_lse, merged_attention
from pack.kernels.reference_attention import multi_reference_attention, torch_attention

CPU, HEADS = torch.device("cpu"), 2
DTYPES = [torch.float32, torch.float16, torch.bfloat16]
# the levels of the references' tokens: of these lengths, with these biases and regions
LENGTHS, BIASES = (7, 3, 5), (3.0, 3.0, -1.5)


@pytest.fixture(autouse=True)
def _probed_anew():
    kernel_with_lse.cache_clear()
    yield
    kernel_with_lse.cache_clear()


def draw(*shape, seed, dtype, strided):
    """strided: a slice of a wider tensor, as where q, k and v come out of one product."""
    wide = torch.randn(*shape[:-1], 3 * shape[-1], generator=torch.Generator().manual_seed(seed)).to(dtype)
    part = wide[..., shape[-1] : 2 * shape[-1]]
    return part if strided else part.contiguous()


def inputs(d, dtype, strided=False, rows=2, n=9, own=11):
    """q, k, v of some rows, and the references' (k, v): n, own and all lengths are no multiples of 8."""
    shapes = [(rows, n), (rows, own), (rows, own), (sum(LENGTHS),), (sum(LENGTHS),)]
    return [draw(*shape, HEADS * d, seed=seed, dtype=dtype, strided=strided) for seed, shape in enumerate(shapes)]


def region(n):
    at_query = torch.rand(n, generator=torch.Generator().manual_seed(9))
    at_query[2:5] = 0
    return at_query.log()


def of_token():
    return torch.arange(len(LENGTHS)).repeat_interleave(torch.tensor(LENGTHS))


def exact(q, k, v, ref_k, ref_v, regions=False):
    """The plain specification, in double."""
    bias = torch.tensor(BIASES)[of_token()]
    at_query = None
    if regions:
        at_query = torch.zeros(q.shape[1], len(LENGTHS))
        at_query[:, 2] = region(q.shape[1])
        at_query = at_query, of_token()
    q, k, v, ref_k, ref_v = (t.double() for t in (q, k, v, ref_k, ref_v))
    return multi_reference_attention(q, k, v, ref_k, ref_v, bias, heads=HEADS, region=at_query)


def merged(q, k, v, ref_k, ref_v, regions=False, in_place=False):
    kernel = kernel_with_lse(CPU, q.dtype, q.shape[-1] // HEADS)
    own, lse = attention_with_lse(kernel, q, k, v, HEADS)
    split = sum(LENGTHS[:2])
    groups = [
        (ref_k[:split], ref_v[:split], BIASES[0], None),
        (ref_k[split:], ref_v[split:], BIASES[2], region(q.shape[1]) if regions else None),
    ]
    before = own.clone()
    out = merged_attention(kernel, q, own, lse, groups, heads=HEADS, out=own if in_place else None)
    assert torch.equal(own, out if in_place else before)
    return out


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("d", [10, 40, 64, 160])
@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("regions", [False, True])
def test_one_softmax_over_all(dtype, d, strided, regions):
    """The error is at most half as large again as that of plain attention to as many tokens, in the same dtype."""
    given = inputs(d, dtype, strided)
    expected = exact(*given, regions)
    out = merged(*given, regions)
    assert out.dtype == dtype
    q, k, v, ref_k, ref_v = given
    own = q, torch.cat([k, ref_k.expand(2, -1, -1)], 1), torch.cat([v, ref_v.expand(2, -1, -1)], 1)
    bare = relative(torch_attention(*own, HEADS), torch_attention(*(t.double() for t in own), HEADS))
    assert relative(out, expected) < 1.5 * max(bare, torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_in_place_is_the_same(dtype):
    given = inputs(40, dtype)
    assert torch.equal(merged(*given, in_place=True), merged(*given))


@pytest.mark.parametrize("bias", [-math.inf, -1000.0, 60.0])
def test_a_bias_may_remove_references_or_the_picture(bias):
    q, k, v, ref_k, ref_v = inputs(40, torch.float32)
    kernel = kernel_with_lse(CPU, q.dtype, 40)
    own, lse = attention_with_lse(kernel, q, k, v, HEADS)
    out = merged_attention(kernel, q, own, lse, [(ref_k, ref_v, bias, None)], heads=HEADS)
    alone, _ = attention_with_lse(kernel, q, ref_k.expand(2, -1, -1), ref_v.expand(2, -1, -1), HEADS)
    torch.testing.assert_close(out, own if bias < 0 else alone, rtol=1e-5, atol=1e-6)


def test_log_sum_exp():
    q, k, v, *_ = inputs(40, torch.float32)
    _, lse = attention_with_lse(kernel_with_lse(CPU, q.dtype, 40), q, k, v, HEADS)
    q, k = (t.double().unflatten(-1, (HEADS, 40)).transpose(1, 2) for t in (q, k))
    torch.testing.assert_close(lse.double(), (q @ k.mT * 40**-0.5).logsumexp(-1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fault", ["missing", "refusing", "another result", "another logarithm"])
def test_a_kernel_that_cannot_be_used_is_none(fault, monkeypatch):
    original = kernels._call

    def call(name, q, k, v):
        out, lse = original(name, q, k, v)
        if fault == "refusing":
            raise RuntimeError("no kernel for this device")
        return (out * 1.2, lse) if fault == "another result" else (out, lse / math.log(2))

    if fault == "missing":
        monkeypatch.setitem(kernels._KERNELS, "cpu", ("_no_such_attention",))
    else:
        monkeypatch.setattr(kernels, "_call", call)
    assert kernel_with_lse(CPU, torch.float32, 40) is None


def test_a_device_without_such_kernels():
    assert kernel_with_lse(torch.device("xla"), torch.float32, 40) is None


# (tokens, channels, heads, how many) of SDXL's self-attentions that "published" names, at 1024 x 1024
SDXL = [(1024, 1280, 20, 20), (4096, 640, 10, 6)]


def test_bytes_of_sdxl():
    """3 references whose masks keep .224 of each: both rows of CFG, beside plain attention of both."""
    plain = ours = 0
    half = {"dtype": torch.float16, "device": "meta"}
    with torch.inference_mode(False), torch.no_grad():
        for n, c, heads, many in SDXL:
            q, k, v = (torch.empty(2, n, c, **half) for _ in range(3))
            kept = [torch.empty(round(0.224 * n), c, **half) for _ in range(3)]
            kernel = kernel_with_lse(q.device, q.dtype, c // heads)
            # q, k and v are read, one as large is written
            plain += many * 4 * q.nbytes
            with Counter() as count:
                own, lse = attention_with_lse(kernel, q, k, v, heads)
                group = torch.cat(kept), torch.cat(kept), 3.0, None
                merged_attention(kernel, q[:1], own[:1], lse[:1], [group], heads=heads, out=own[:1])
            ours += many * count.found.moved
    assert plain == pytest.approx(671e6, rel=0.01)
    assert ours <= 2.3 * plain
