"""Tensors of inference mode, as a gradient may save them: the same memory and the same view of it."""

import pytest
import torch

from pack.nodes.host.gradients import differentiable, normal

VIEWS = {
    "whole": lambda t: t,
    "a part": lambda t: t[1:, 2:],
    "turned": lambda t: t.mT[1:],
    "every second": lambda t: t[::2, ::3],
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_a_view_stays_that_view(view):
    whole = torch.arange(24.0).view(4, 6)
    assert whole.is_inference()
    part = view(whole)
    with torch.inference_mode(False):
        found = normal(part)
    assert not found.is_inference() and torch.equal(found, part)
    whole += 100
    assert torch.equal(found, part)


def test_a_gradient_through_a_part_of_a_weight():
    weight = torch.arange(24.0).view(4, 6)[1:3]
    with differentiable():
        x = torch.ones(1, 6).requires_grad_(True)
        (gradient,) = torch.autograd.grad(torch.nn.functional.linear(x, weight).square().sum(), x)
    expected = 2 * (torch.ones(1, 6) @ weight.mT) @ weight
    torch.testing.assert_close(gradient, expected)
