"""Image prompts in few operations give what the formulas give that they stand for, in every dtype and layout."""

import itertools

import pytest
import torch
from support.compare import relative

from pack.kernels.image_prompt_attention import (
    add_part,
    image_probabilities,
    image_values,
    joint_attention,
    picture_attention,
    picture_shares,
)
from pack.kernels.object_shares import merge_weights, object_maps, object_shares

HEADS = 2
# Rounding of plain attention in each dtype, twice.
LIMITS = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def draw(*shape, seed=0, dtype=torch.float32, strided=False):
    """Random numbers; strided: a slice of a wider tensor, as where q, k and v come out of one product."""
    wide = torch.randn(*shape[:-1], 3 * shape[-1], generator=torch.Generator().manual_seed(seed + sum(shape)))
    part = wide.to(dtype)[..., shape[-1] : 2 * shape[-1]]
    return part if strided else part.contiguous()


@pytest.mark.parametrize("counts", [[2, 2, 2], [1, 3, 2], [4]], ids=str)
@pytest.mark.parametrize("own_phrases", [False, True])
def test_shares_are_those_of_the_maps(counts, own_phrases):
    """9 positions, heads of 10: no multiples of 8."""
    q, phrase_k = draw(2, 9, 20), draw(2 if own_phrases else 1, sum(counts), 20, seed=1)
    regions = torch.rand(len(counts), 9, generator=torch.Generator().manual_seed(2))
    regions[0, :3] = regions[:, 4] = 0
    for power, some in itertools.product((1.0, 0.0, 2.5), (None, regions)):
        expected = merge_weights(object_maps(q, phrase_k, counts, heads=HEADS), power=power, regions=some)
        found = object_shares(q, phrase_k, counts, heads=HEADS, power=power, regions=some)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_peaky_shares_stay_numbers():
    q, phrase_k = draw(1, 64, 32) * 40, draw(1, 4, 32, seed=1) * 40
    found = object_shares(q, phrase_k, [1, 3], heads=HEADS)
    expected = merge_weights(object_maps(q, phrase_k, [1, 3], heads=HEADS))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("lengths", [[4, 4, 4], [1, 6, 5], [12]], ids=str)
@pytest.mark.parametrize("strided", [False, True])
def test_each_picture_has_its_softmax(dtype, lengths, strided):
    q, k, v = (draw(*s, seed=i, dtype=dtype, strided=strided) for i, s in enumerate([(2, 9, 20), (12, 20), (12, 20)]))
    factors = torch.rand(2, len(lengths), 9, generator=torch.Generator().manual_seed(3))
    out = draw(2, 9, 20, seed=4, dtype=dtype)
    exact = [t.double() for t in (q, k, v, out)]
    probabilities = image_probabilities(*exact[:2], heads=HEADS, lengths=lengths)
    expected = exact[3] + image_values(probabilities, exact[2], factors.double(), lengths=lengths)
    for part, factor in zip(picture_attention(q, k, v, lengths, heads=HEADS), factors.unbind(1), strict=True):
        assert add_part(out, part, factor) is out
    assert out.dtype == dtype
    assert relative(out, expected) < LIMITS[dtype]


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@pytest.mark.parametrize("regions", [False, True])
def test_one_softmax_for_all(dtype, regions):
    q, k, v = (draw(*s, seed=i, dtype=dtype) for i, s in enumerate([(2, 9, 20), (12, 20), (12, 20)]))
    lengths, log_regions = [3, 4, 5], None
    if regions:
        log_regions = torch.rand(3, 9, generator=torch.Generator().manual_seed(5)).log()
    out, shares = joint_attention(q, k, v, lengths, heads=HEADS, log_regions=log_regions)
    joint = {"heads": HEADS, "lengths": lengths, "joint": True, "log_regions": log_regions}
    probabilities = image_probabilities(q.double(), k.double(), **joint)
    ones = torch.ones(1, 3, 1)
    assert relative(out, image_values(probabilities, v.double(), ones, lengths=lengths)) < LIMITS[dtype]
    torch.testing.assert_close(shares, picture_shares(probabilities, lengths), rtol=0, atol=LIMITS[dtype])


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
def test_a_part_without_a_factor(dtype):
    out, part = draw(2, 9, 20, dtype=dtype), draw(2, 9, 20, seed=1, dtype=dtype)
    expected = out.double() + 0.3 * part.double()
    assert relative(add_part(out, part, value=0.3), expected) < LIMITS[dtype]
