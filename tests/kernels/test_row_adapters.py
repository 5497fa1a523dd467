"""Weight deltas in activation space = the layer with the patched weight, one row at a time."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from pack.kernels.row_adapters import (
    add_raised,
    grouped_conv,
    hadamard_factors,
    hadamard_weight,
    kronecker_conv,
    kronecker_linear,
    lowered,
)


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def added(x, down, up):
    """What the two products add to something."""
    y = draw(*x.shape[:2], up.shape[1], seed=9)
    out = y.clone()
    assert add_raised(out, lowered(x, down), up) is out
    return out - y


def test_raising_adds_in_place_with_and_without_gradients():
    x, down, up = draw(2, 10, 6), draw(2, 2, 6), draw(2, 5, 2)
    y = draw(2, 10, 5, seed=9)
    expected = y + x @ (up @ down).mT
    near(add_raised(y.clone(), lowered(x, down), up), expected)
    with torch.inference_mode(False), torch.enable_grad():
        x, y = x.clone().requires_grad_(), y.clone()
        near(add_raised(y, lowered(x, down.clone()), up.clone()), expected)
        (given,) = torch.autograd.grad(y.sum(), x)
    near(given, (up @ down).sum(1)[:, None].expand(x.shape))


def test_its_products_are_counted():
    x, down, up = draw(3, 10, 6), draw(3, 2, 6), draw(3, 5, 2)
    with FlopCounterMode(display=False) as counter:
        add_raised(draw(3, 10, 5), lowered(x, down), up)
    assert counter.get_total_flops() == 2 * 3 * 10 * 2 * (6 + 5)


def near(value, expected):
    assert value.shape == expected.shape
    assert torch.allclose(value, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("k", [1, 3])
def test_linear(k):
    x, down, up = draw(k, 10, 6), draw(k, 2, 6), draw(k, 5, 2)
    out = added(x, down, up)
    for path in range(k):
        for row in range(10):
            near(out[path, row], (up[path] @ down[path]) @ x[path, row])


@pytest.mark.parametrize(
    "geometry", [(1, 1, 0, 1), (3, 1, 1, 1), (3, 2, 1, 1), (1, 2, 0, 1), (1, 1, 1, 1), (3, 1, 2, 2)]
)
@pytest.mark.parametrize(("k", "b"), [(1, 1), (3, 2)])
def test_conv(geometry, k, b):
    side, stride, padding, dilation = geometry
    how = {"stride": (stride,) * 2, "padding": (padding,) * 2, "dilation": (dilation,) * 2}
    x, down, up = draw(k, b, 4, 7, 6), draw(k, 2, 4, side, side), draw(k, 5, 2)
    out = grouped_conv(x, down, up, **how)
    for path in range(k):
        weight = torch.einsum("or,ripq->oipq", up[path], down[path])
        near(out[path], F.conv2d(x[path], weight, **how))


def test_zeros_that_pad_a_rank_change_nothing():
    x, down, up = draw(2, 3, 6), draw(2, 4, 6), draw(2, 5, 4)
    down[1, 2:], up[1, :, 2:] = 0, 0
    near(added(x, down, up)[1], added(x[1:], down[1:, :2], up[1:, :, :2])[0])


def test_kronecker():
    left, right = draw(3, 2), draw(5, 4)
    x = draw(7, 9, 8)
    near(kronecker_linear(x, left, right), x @ torch.kron(left, right).T)


@pytest.mark.parametrize("stride", [1, 2])
def test_kronecker_conv(stride):
    left, right, x = draw(3, 2), draw(5, 4, 3, 3), draw(2, 8, 6, 7)
    how = {"stride": (stride, stride), "padding": (1, 1)}
    weight = torch.kron(left[:, :, None, None], right)
    near(kronecker_conv(x, left, right, **how), F.conv2d(x, weight, **how))


def test_hadamard():
    a, b, c, d = draw(6, 2), draw(2, 7), draw(6, 3, seed=1), draw(3, 7, seed=1)
    weight = hadamard_weight(a, b, c, d)
    for row in range(6):
        for column in range(7):
            near(weight[row, column], (a[row] * b[:, column]).sum() * (c[row] * d[:, column]).sum())
    down, up = hadamard_factors(a, b, c, d)
    near(up @ down, weight)
    assert down.shape == (6, 7) and up.shape == (6, 6)


def test_gradients():
    with torch.inference_mode(False), torch.enable_grad():
        x = draw(2, 2, 4, 5, 5).clone().requires_grad_()
        how = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1)}
        down, up = draw(2, 2, 4, 3, 3).clone(), draw(2, 3, 2).clone()
        assert torch.autograd.gradcheck(lambda t: grouped_conv(t, down, up, **how), x)
