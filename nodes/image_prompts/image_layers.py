"""The keys and values of image tokens at each cross-attention, computed once."""

from dataclasses import dataclass, fields

import torch


@dataclass(frozen=True, eq=False)
class ImageLayer:
    """What the image tokens of some objects are at one cross-attention. On the CPU, in float32."""

    k: torch.Tensor  # (m, c), one object's tokens after the other's
    v: torch.Tensor  # (m, c)
    # what unconditional rows see in place of them: of one empty picture (t, c) for all objects, or of each (m, c)
    empty_k: torch.Tensor
    empty_v: torch.Tensor
    gate: torch.Tensor | None  # (1, c)

    def joined_by(self, later, share_empty):
        """The objects of both, which share one adapter."""
        k, v = torch.cat([self.k, later.k]), torch.cat([self.v, later.v])
        if share_empty:
            return ImageLayer(k, v, self.empty_k, self.empty_v, self.gate)
        empty_k, empty_v = (
            torch.cat([_for_each(getattr(layer, name), layer.k) for layer in (self, later)])
            for name in ("empty_k", "empty_v")
        )
        return ImageLayer(k, v, empty_k, empty_v, self.gate)

    def weighted(self, scales, share_empty):
        """The same with each object's values times its scale; scales (m,): one for each token of the objects."""
        v, empty_v = self.v * scales[:, None], self.empty_v if share_empty else self.empty_v * scales[:, None]
        return ImageLayer(self.k, v, self.empty_k, empty_v, self.gate)

    def to(self, like):
        """The same on the device and in the dtype of a tensor."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return ImageLayer(**{name: None if tensor is None else tensor.to(like) for name, tensor in tensors.items()})


def image_layers(blocks, adapter, tokens, empty, text_gate=True):
    """{host key: ImageLayer} for the cross-attentions that belong to the adapter's pairs, in their order.

    tokens: of each object (t, D); empty: of no picture, one (t, D) for all objects or a list of one for each. The
    adapter's matrices are not needed afterwards.
    """
    tokens = torch.cat(list(tokens))
    empty = empty if isinstance(empty, torch.Tensor) else torch.cat(empty)
    layers = {}
    for block, pair in zip(blocks, adapter.pairs, strict=True):
        to_k, to_v = (matrix.float().mT for matrix in (pair.to_k, pair.to_v))
        gate = pair.gate.float() if text_gate and pair.gate is not None else None
        layers[block] = ImageLayer(tokens @ to_k, tokens @ to_v, empty @ to_k, empty @ to_v, gate)
    return layers


def _for_each(empty, tokens):
    """The tokens of an empty picture as often as there are objects of as many tokens."""
    return empty.repeat(len(tokens) // len(empty), 1)
