"""How far two results are apart: the measures that all tests share. Each test names its own tolerance."""

import torch

# The golden numbers and their tolerances come from CPUs with AVX-512; others add up in another order, and the random
# weights of the tiny UNets make that up to three times as large at their worst place.
OTHER_UNITS = 1 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 3


def relative(found, expected):
    """|found - expected| / |expected|, Euclidean and in double precision: how large the error is as a whole."""
    assert found.shape == expected.shape
    found, expected = found.double(), expected.double()
    return float((found - expected).norm() / expected.norm())


def differ(found, expected):
    """max |found - expected| / max |expected|: the worst value, beside the largest there is."""
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


def close(found, expected, tolerance):
    """Asserts that no value is further than `tolerance` from its own, whatever its size.

    Shape, dtype and device are equal too, and no gradient hangs on what was found. expected may be nested lists of
    numbers, which stand for float32 on the CPU.
    """
    expected = torch.as_tensor(expected)
    assert not found.requires_grad
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)
