"""Training attention: values and gradients as PyTorch's own."""

import attention
import pytest
import torch
import torch.nn.functional as F


@pytest.mark.parametrize("keys", [40, 7])
@pytest.mark.parametrize("at_a_time", [1, 5000, 2**18])
def test_values_and_gradients_are_those_of_the_formula(keys, at_a_time, monkeypatch):
    monkeypatch.setattr(attention, "AT_A_TIME", at_a_time)
    generator = torch.Generator().manual_seed(0)
    shapes = ((5, 3, 40, 8), (5, 3, keys, 8), (5, 3, keys, 8))
    with torch.inference_mode(False), torch.enable_grad():
        mask = torch.where(torch.rand(40, keys, generator=generator) < 0.3, -1e4, 0.0)
        inputs = [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]
        gradient = torch.randn(shapes[0], generator=generator)
        for given in (None, mask):
            ours, theirs = attention.attend(*inputs, given), F.scaled_dot_product_attention(*inputs, given)
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
            pairs = zip(*(torch.autograd.grad(out, inputs, gradient) for out in (ours, theirs)), strict=True)
            for one, two in pairs:
                torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)


def test_it_stands_in_for_the_hosts_within_the_context_only():
    plain = F.scaled_dot_product_attention
    with attention.learning("cpu"):
        assert F.scaled_dot_product_attention is attention.attend
    with attention.learning("cuda"):
        assert F.scaled_dot_product_attention is plain
    assert F.scaled_dot_product_attention is plain


def test_what_it_cannot_do_is_said():
    with pytest.raises(ValueError, match="no dropout"):
        attention.attend(*[torch.ones(1, 1, 1, 1)] * 3, is_causal=True)
