"""Weights that a checkpoint keeps packed (fp8 with a scale, other quantised forms): their values as plain tensors."""

import copy

import comfy.model_management as mm
import comfy.ops
import torch
import torch.nn.functional as F

from .fetched_weights import Fetching, is_fetched, patches_of
from .messages import input_error

LARGE = 1024.0
_PLAIN = (torch.Tensor, torch.nn.Parameter)
# Modules whose layers multiply with their weight as it is.
_LAYERS = ("comfy.ops", "torch.nn.modules.")
# What classes of packed tensors raise that do not give their values.
_REFUSALS = (AttributeError, NotImplementedError, RuntimeError, TypeError)


class SealedWeightError(Exception):
    """A packed weight whose values cannot be had; says what class it is of."""


def is_packed(layer):
    """Whether a layer's weight is no plain tensor of its values."""
    weight = layer._parameters.get("weight")
    return weight is not None and (not _holds_values(layer, weight) or hasattr(layer, "convert_weight"))


def _holds_values(layer, tensor):
    """Whether a tensor of a layer, of whatever class, is that of its values: it is computed with as it is."""
    kind = type(tensor)
    computes = type(layer).__module__.startswith(_LAYERS) and kind.dequantize is torch.Tensor.dequantize
    return kind in _PLAIN or computes


def unpacked(layer, kind, tensor):
    """The values (float32) of a layer's "weight" or "bias"; tensor: the packed form, which the layer need not hold.

    Raises SealedWeightError for a form whose values cannot be had.
    """
    try:
        convert = getattr(layer, f"convert_{kind}", None)
        plain = tensor if convert is None else convert(tensor, inplace=False)
        if not _holds_values(layer, plain):
            plain = plain.dequantize()
        return plain.to(torch.float32)
    except mm.OOM_EXCEPTION:
        # a RuntimeError too, but no refusal
        raise
    except _REFUSALS:
        if kind == "weight" and tensor is layer.weight and hasattr(layer, "in_features"):
            return _by_products(layer)
        raise SealedWeightError(type(tensor).__name__) from None


def check_unpackable(layers, what):
    """ValueError, naming `what` needs them, if values of the weights of some layers cannot be had."""
    one_of_each = {type(layer.weight): layer for layer in layers if is_packed(layer)}
    for layer in one_of_each.values():
        try:
            unpacked(layer, "weight", layer.weight)
        except SealedWeightError as kind:
            raise input_error(
                f"{what} needs the weights themselves, but this checkpoint keeps them as {kind}, which cannot be read; "
                "load the checkpoint in another precision"
            ) from None


def plain_layer(layer, weight, bias):
    """A layer that does with plain tensors what a packed one does."""
    device = {"device": "meta", "dtype": weight.dtype}
    if isinstance(layer, torch.nn.Conv2d):
        names = ("stride", "padding", "dilation", "groups", "padding_mode")
        settings = {name: getattr(layer, name) for name in names}
        sizes = layer.in_channels, layer.out_channels, layer.kernel_size
        made = comfy.ops.manual_cast.Conv2d(*sizes, bias=bias is not None, **settings, **device)
    else:
        sizes = layer.in_features, layer.out_features
        made = comfy.ops.manual_cast.Linear(*sizes, bias=bias is not None, **device)
    made.weight = torch.nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        made.bias = torch.nn.Parameter(bias, requires_grad=False)
    return made


def unpacking(module, device=None):
    """A module like this one that unpacks its weights, and fetches those that do not lie on the device, as it computes
    and again on a gradient's way back.

    All else is shared; where there is nothing else, it is the module itself. device: None where all weights are loaded.
    """
    weight = module._parameters.get("weight")
    if weight is not None and not _holds_values(module, weight):
        return _Unpacking(module)
    if device is not None and is_fetched(module, device):
        return Fetching(module)
    children = {name: None if child is None else unpacking(child, device) for name, child in module._modules.items()}
    if all(child is module._modules[name] for name, child in children.items()):
        return module
    clone = copy.copy(module)
    clone.__dict__["_modules"] = children
    return clone


class _Unpacking(Fetching):
    """A packed layer as one that a gradient can pass. Its values are not kept for the way back: those of all layers
    together are as large as the unpacked model.
    """

    def _computed(self, x, *args, **kwargs):
        layer = self.layer
        with torch.no_grad():
            weight, bias = (self._values(kind, x) for kind in ("weight", "bias"))
        return F.linear(x, weight, bias) if hasattr(layer, "in_features") else plain_layer(layer, weight, bias)(x)

    def _values(self, kind, like):
        packed = getattr(self.layer, kind)
        if packed is None:
            return None
        values = unpacked(self.layer, kind, packed).to(like)
        for patch in patches_of(self.layer, kind):
            values = patch(values)
        return values


def _by_products(layer):
    """The weight (o, i) of a layer by what it makes of each input alone."""
    like = {"device": layer.weight.device, "dtype": torch.float32}
    # large inputs, so that nothing of the weight is lost beside the bias
    found = layer(LARGE * torch.eye(layer.in_features, **like)) - layer(torch.zeros(1, layer.in_features, **like))
    return found.mT.float().contiguous() / LARGE
