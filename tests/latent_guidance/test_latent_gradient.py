"""The gradient with respect to a latent: right in half precision too, and only taken where memory allows."""

import comfy.model_management as mm
import pytest
import torch
from support.models import tiny_model
from support.references import draw

from pack.nodes.host.calls import clean_options
from pack.nodes.latent_guidance.latent_gradient import (
    ACTIVATIONS,
    Guided,
    differentiable_options,
    gradient_fits,
    gradient_of,
    gradient_through,
)

GUIDED = Guided("layout guidance", "guidance_weight")


@pytest.fixture(autouse=True)
def _gradients():
    with torch.inference_mode(False), torch.enable_grad():
        yield


def taken(dtype, scale, weight=None):
    """The gradient of scale * sum (w leaf)^2 through one product in a dtype."""
    leaf = draw(4, 8).requires_grad_(True)
    weight = draw(8, 8, seed=1).to(dtype) if weight is None else weight
    output = leaf.to(dtype) @ weight
    return gradient_of(lambda found: scale * found.square().sum(), output, leaf, GUIDED)


def test_in_full_precision_it_is_autograds():
    leaf = draw(4, 8).requires_grad_(True)
    (expected,) = torch.autograd.grad(3 * (leaf @ draw(8, 8, seed=1)).square().sum(), leaf)
    torch.testing.assert_close(taken(torch.float32, 3.0), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e7])
def test_in_half_precision_neither_small_nor_large_values_are_lost(dtype, scale):
    """Those of 1e-9 would be zero, those of 1e7 infinite, if they went through half precision as they are."""
    ours, exact = taken(dtype, scale), taken(torch.float32, scale)
    assert (ours - exact).norm() < 0.02 * exact.norm()


def test_no_loss_gives_no_gradient():
    assert torch.equal(taken(torch.float16, 0.0), torch.zeros(4, 8))


def test_outputs_that_the_loss_leaves_out_count_as_nothing():
    leaf = draw(4, 8).requires_grad_(True)
    output = leaf @ draw(8, 8, seed=1)
    whole = gradient_through(lambda found, latent: found.square().sum(), [output, leaf], leaf, None)
    torch.testing.assert_close(whole, taken(torch.float32, 1.0))
    left_out = gradient_through(lambda found, latent: latent.square().sum(), [leaf @ draw(8, 8), leaf], leaf, None)
    torch.testing.assert_close(left_out, 2 * leaf.detach())


def test_values_that_are_no_numbers_at_every_scale_are_said():
    weight = torch.full((8, 8), 1.0, dtype=torch.float16)
    weight[0, 0] = torch.inf
    leaf = torch.ones(4, 8, requires_grad=True)
    output = leaf.half() @ weight
    with pytest.raises(ValueError, match="NaN or infinite values in float16; start ComfyUI with --fp32-unet"):
        gradient_of(lambda found: found[:, 1:].sum(), output, leaf, GUIDED)


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_what_a_gradient_keeps_is_asked_of_free_memory(kind, monkeypatch):
    model = tiny_model(kind)
    latent = torch.zeros(1, 4, 16, 16)
    kept = ACTIVATIONS[len(model.model.diffusion_model.output_blocks)] * 16 * 16 * 2
    forward = model.model.memory_required([3, 4, 16, 16]) * 1.5
    for factor, fits in ((1.01, True), (0.99, False)):
        free = factor * (3 * kept + forward)
        monkeypatch.setattr(mm, "get_free_memory", lambda device, free=free: free)
        assert gradient_fits(model.model, 3, latent) is fits


def test_the_attention_has_a_backward_pass():
    """Whatever backend the host has chosen, this one is asked."""
    options = differentiable_options(clean_options(1.0))
    q, k, v = (draw(1, 4, 8, seed=seed).requires_grad_(True) for seed in range(3))
    out = options["optimized_attention_override"](None, q, k, v, 2)
    expected = torch.nn.functional.scaled_dot_product_attention(
        *(t.unflatten(-1, (2, 4)).transpose(1, 2) for t in (q, k, v))
    )
    torch.testing.assert_close(out, expected.transpose(1, 2).flatten(2))
    assert torch.autograd.grad(out.sum(), q)[0].shape == q.shape


def steep(factor, times, size):
    """(leaf (4,), output in half precision): times products with a factor, on values that stay small on the way."""
    leaf = torch.full((4,), size).requires_grad_(True)
    output = leaf.half()
    for _ in range(times):
        output = output * factor
    return leaf, output


def weighted(output):
    return (output * torch.arange(1.0, 5.0)).sum()


@pytest.mark.parametrize("times", [1, 2])
def test_half_precision_that_overflows_is_scaled_down(times):
    """1000 * 1000 times the first scale is more than half precision holds; 256 times less is not."""
    gradient = gradient_of(weighted, *reversed(steep(1000.0, times, 1e-4)), GUIDED)
    torch.testing.assert_close(gradient, 1000.0**times * torch.arange(1.0, 5.0), rtol=2e-3, atol=0)


def test_what_overflows_at_every_scale_is_refused():
    with pytest.raises(ValueError, match="NaN or infinite values in float16"):
        gradient_of(weighted, *reversed(steep(1e4, 4, 0.0)), GUIDED)
