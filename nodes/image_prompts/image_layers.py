"""The keys and values of image tokens at each cross-attention, computed once."""

from dataclasses import dataclass, fields

import torch


@dataclass(frozen=True, eq=False)
class ImageLayer:
    """What the image tokens of some objects are at one cross-attention. On the CPU, in float32."""

    k: torch.Tensor  # (r, t, c)
    v: torch.Tensor  # (r, t, c)
    empty_k: torch.Tensor  # (1, t, c), what unconditional rows see in place of every picture
    empty_v: torch.Tensor  # (1, t, c)
    gate: torch.Tensor | None  # (1, c)

    def joined_by(self, later):
        """The objects of both, which share one adapter."""
        k, v = torch.cat([self.k, later.k]), torch.cat([self.v, later.v])
        return ImageLayer(k, v, self.empty_k, self.empty_v, self.gate)

    def to(self, like):
        """The same on the device and in the dtype of a tensor."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return ImageLayer(**{name: None if tensor is None else tensor.to(like) for name, tensor in tensors.items()})


def image_layers(blocks, adapter, tokens, empty, text_gate=True):
    """{host key: ImageLayer} for the cross-attentions that belong to the adapter's pairs, in their order.

    tokens (r, T, D) of the objects, empty (T, D) of no picture. The adapter's matrices are not needed afterwards.
    """
    layers = {}
    for block, pair in zip(blocks, adapter.pairs, strict=True):
        to_k, to_v = (matrix.float().mT for matrix in (pair.to_k, pair.to_v))
        gate = pair.gate.float() if text_gate and pair.gate is not None else None
        layers[block] = ImageLayer(tokens @ to_k, tokens @ to_v, empty[None] @ to_k, empty[None] @ to_v, gate)
    return layers
