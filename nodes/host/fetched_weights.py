"""Weights that the host fetches as they are used, since not all of a model fits on the card."""

import copy

import comfy.ops
import torch
from torch.utils.checkpoint import checkpoint

from .gradients import normal

# What the host notes at a layer whose weights it keeps in pages of its own.
_PAGES = ("_v", "_v_signature", "_v_weight", "_v_bias", "_pins", "_prefetch")
_KINDS = ("weight", "bias")


def is_fetched(layer, device):
    """Whether the weights of a layer are not on the device where it computes, or come and go there."""
    weight = layer._parameters.get("weight")
    if weight is None or not hasattr(layer, "comfy_cast_weights"):
        return False
    return hasattr(layer, "_v") or weight.device != device


def patches_of(layer, kind):
    """What the host does to the "weight" or "bias" of a partly loaded layer as it uses it: [function of a tensor]."""
    paged = getattr(layer, f"{kind}_lowvram_function", None)
    return [*([] if paged is None else [paged]), *getattr(layer, f"{kind}_function", ())]


def carrying(layer, own):
    """A layer like this one with plain tensors of its own, {"weight" or "bias": tensor}, which nobody patches again."""
    clone = copy.copy(layer)
    clone.__dict__["_parameters"] = {
        **layer._parameters,
        **{kind: torch.nn.Parameter(tensor, requires_grad=False) for kind, tensor in own.items()},
    }
    for name in _PAGES:
        # pages are of the layer's old weights
        clone.__dict__.pop(name, None)
    for kind in _KINDS:
        if patches_of(layer, kind):
            setattr(clone, f"{kind}_lowvram_function", None)
            setattr(clone, f"{kind}_function", [] if kind in own else patches_of(layer, kind))
    return clone


class Fetching(torch.nn.Module):
    """A layer whose weights are fetched, as one that a gradient can pass: the host's buffers are others' by then, so
    the weights are fetched again on the way back.
    """

    def __init__(self, layer):
        super().__init__()
        # no child of this module: the host must not take it for a further one
        self.__dict__["layer"] = layer

    def forward(self, x, *args, **kwargs):
        return checkpoint(self._computed, normal(x), *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    def _computed(self, x, *args, **kwargs):
        with torch.no_grad():
            weight, bias, stream = comfy.ops.cast_bias_weight(self.layer, x, offloadable=True)
            own = {kind: t.clone() for kind, t in (("weight", weight), ("bias", bias)) if t is not None}
            comfy.ops.uncast_bias_weight(self.layer, weight, bias, stream)
        return carrying(self.layer, own)(x, *args, **kwargs)
