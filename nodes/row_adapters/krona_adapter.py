"""KronA (DiffuseKronA, arXiv 2402.17412) as an adapter of the host, which patches weights with it as with any LoRA."""

from dataclasses import dataclass

import torch
from comfy.weight_adapter import WeightAdapterBase

from ...kernels.row_adapters import crossed_linear, crossed_weight


@dataclass(frozen=True, eq=False)
class Crossed:
    """scale * W of kernels/row_adapters.crossed_weight: down (a2, a1), up (b1, b2)."""

    down: torch.Tensor
    up: torch.Tensor
    scale: float


def crossed_part(weights, shape):
    """The Crossed of a KronAAdapter's weights, None for a layer of another shape."""
    down, up = weights
    fits = len(shape) == 2 and tuple(shape) == (up.shape[0] * down.shape[1], down.shape[0] * up.shape[1])
    return Crossed(down, up, 1.0) if fits else None


class KronAAdapter(WeightAdapterBase):
    """W + strength * delta; weights: (down (a2, a1), up (b1, b2)). The host moves it by these two arguments."""

    name = "krona"

    def __init__(self, loaded_keys, weights):
        self.loaded_keys, self.weights = loaded_keys, weights

    def calculate_weight(
        self,
        weight,
        key,
        strength,
        strength_model,
        offset,
        function,
        intermediate_dtype=torch.float32,
        original_weight=None,
    ):
        """The host's call when it patches a weight, which it may change."""
        down, up = (t.to(weight.device, intermediate_dtype) for t in self.weights)
        delta = strength * crossed_weight(down, up)
        return weight.add_(function(delta.to(weight.dtype)))

    def h(self, x, base_out):
        """What is added beside the layer, where the host leaves its weight alone."""
        down, up = (t.to(x.device, x.dtype) for t in self.weights)
        return self.multiplier * crossed_linear(x, down, up)
