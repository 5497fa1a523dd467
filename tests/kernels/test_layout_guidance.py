"""The layout loss and its gradient against recorded values and a slow loop."""

import pytest
import torch
from support.golden_data import case

from pack.kernels.layout_guidance import layout_loss


@pytest.mark.parametrize("factor", [0.5, 1.0])
@pytest.mark.parametrize("masked", [0, 1])
def test_golden(factor, masked):
    golden, _ = case("concept_conductor/kernels")
    with torch.inference_mode(False), torch.enable_grad():
        stacked = torch.stack([golden[f"loss/key_{name}"] for name in ("base", "custom1", "custom2")])
        keys = stacked.clone().requires_grad_(True)
        weights = torch.tensor([1.0, factor / 2, factor / 2])
        foreground = golden["loss/foreground"].clone() if masked else None
        loss = layout_loss(keys, golden["loss/key_ref"][0].clone(), weights, foreground)
        (gradient,) = torch.autograd.grad(loss, keys)
    recorded = f"loss/mask{masked}_factor{factor}"
    torch.testing.assert_close(loss.detach(), golden[f"{recorded}/value"], rtol=1e-6, atol=0)
    for path, name in enumerate(("base", "custom1", "custom2")):
        torch.testing.assert_close(gradient[path], golden[f"{recorded}/grad_{name}"], rtol=1e-5, atol=1e-9)


def test_foreground_is_the_masks_at_the_layer():
    from pack.kernels.mask_pyramid import grid_mask

    golden, _ = case("concept_conductor/kernels")
    masks = [grid_mask(golden[f"loss/mask_latent{i}"], (8, 8)).float().flatten() for i in (1, 2)]
    torch.testing.assert_close(sum(masks), golden["loss/foreground"])


def test_slow_loop():
    generator = torch.Generator().manual_seed(1)
    keys = torch.randn(3, 2, 5, 4, generator=generator)
    reference, foreground = torch.randn(5, 4, generator=generator), torch.tensor([[0, 1, 2, 0, 1.0], [1, 1, 0, 0, 2]])
    weights = torch.tensor([1.0, 0.25, 0.75])
    total = 0.0
    for path in range(3):
        for image in range(2):
            for token in range(5):
                for channel in range(4):
                    difference = keys[path, image, token, channel] - reference[token, channel]
                    total += weights[path] * foreground[image, token] * difference**2 / 20
    torch.testing.assert_close(layout_loss(keys, reference, weights, foreground), total)


def test_images_do_not_see_each_other():
    """The gradient of an image is the same in a batch as alone."""
    keys, reference, weights = torch.randn(2, 3, 6, 4), torch.randn(6, 4), torch.tensor([1.0, 1.0])

    def gradient(of):
        with torch.inference_mode(False), torch.enable_grad():
            leaf = of.clone().requires_grad_(True)
            return torch.autograd.grad(layout_loss(leaf, reference.clone(), weights.clone()), leaf)[0]

    together = gradient(keys)
    for image in range(3):
        torch.testing.assert_close(together[:, image : image + 1], gradient(keys[:, image : image + 1]))
