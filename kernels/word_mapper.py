"""NeTI's network: a word's vectors at a timestep and every layer (arXiv 2305.15391)."""

import torch
from torch.nn.functional import layer_norm, leaky_relu, linear

# Units of its hidden layers.
HIDDEN = 128


def mapped_word(weights, timestep, layers, *, truncation=HIDDEN, norm=None):
    """(layers, o): what the network gives for each of `layers` layers at a timestep.

    weights: {name: tensor} of the network, with "encoder.w" for one of positional encoding; truncation: how many hidden
    units count; norm: the length that each row gets, None as it is.
    """
    numbers = torch.arange(layers, dtype=torch.float32)
    if "encoder.w" in weights:
        place = torch.stack([torch.full_like(numbers, float(timestep)), numbers], 1)
        angles = place @ weights["encoder.w"].float().T
        h = torch.cat([angles.sin(), angles.cos()], 1)
        h = h / h.norm(dim=1, keepdim=True)
        h = linear(h, weights["input_layer.weight"], weights["input_layer.bias"])
    else:
        time = torch.full_like(numbers, 2 * int(timestep) / 999 - 1)
        h = torch.stack([time, 2 * numbers / (layers - 1) - 1], 1)
    for dense, normal in (("net.1", "net.2"), ("net.4", "net.5")):
        h = linear(h, weights[f"{dense}.weight"], weights[f"{dense}.bias"])
        h = leaky_relu(layer_norm(h, h.shape[-1:], weights[f"{normal}.weight"], weights[f"{normal}.bias"]))
    h = torch.cat([h[:, :truncation], torch.zeros_like(h[:, truncation:])], 1)
    o = linear(h, weights["output_layer.0.weight"], weights["output_layer.0.bias"])
    return o if norm is None else norm * o / o.norm(dim=1, keepdim=True)
