"""Weights of an NPNet that has learnt nothing yet: its golden noise is the noise."""

import torch

from .shapes import npnet_shapes

# Spread of Swin's first weights (arXiv 2103.14030, code); the other layers use 1 / sqrt(inputs).
SWIN_STD = 0.02


def fresh_weights(sizes, seed):
    """{name: tensor}: norms are neutral, biases 0, and the last layer of the SVD branch, alpha and beta are 0."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in npnet_shapes(sizes).items():
        if name.startswith(("alpha", "beta", "unet_svd.mlp4.2")) or name.endswith("bias"):
            weights[name] = torch.zeros(shape)
        elif len(shape) == 1:
            weights[name] = torch.ones(shape)
        else:
            std = SWIN_STD if ".swin." in name else (shape[0] / torch.Size(shape).numel()) ** 0.5
            weights[name] = std * torch.randn(shape, generator=generator)
    return weights
