"""Pictures between tensors and PIL."""

import torch

from pack.nodes.host.panels import as_images, as_picture


def test_every_shade_comes_back():
    shades = torch.arange(256).div(255).view(16, 16, 1).expand(-1, -1, 3)
    assert torch.equal(as_images([as_picture(shades)])[0], shades)


def test_values_are_rounded_and_bounded():
    values = torch.tensor([-1.0, 0.4 / 255, 0.6 / 255, 2.0]).view(1, 4, 1).expand(-1, -1, 3)
    assert as_images([as_picture(values)])[0, 0, :, 0].mul(255).tolist() == [0, 0, 1, 255]
