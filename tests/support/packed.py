"""Tiny models whose weights are packed, each with a twin that has the same values unpacked."""

import copy

import comfy.ops
import torch
import torch.nn.functional as F


class Sealed(torch.Tensor):
    """A class of packed tensors that tells its values to its own layer alone."""

    @staticmethod
    def __new__(cls, values):
        return torch.Tensor._make_wrapper_subclass(cls, values.shape, dtype=values.dtype, requires_grad=False)

    def __init__(self, values):
        self.halves = values.half()

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        if function in (torch.ops.aten.detach.default, torch.ops.aten._to_copy.default):
            return args[0]
        raise NotImplementedError(f"{function} of a sealed tensor")


class _OfItself:
    """What both layers with such a weight share: the host moves nothing of it."""

    def _apply(self, fn, recurse=True):
        return self

    def _load_from_state_dict(self, *args):
        pass


class SealedLinear(_OfItself, torch.nn.Linear):
    def forward(self, x):
        return F.linear(x, self.weight.halves.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


class SealedConv(_OfItself, torch.nn.Conv2d):
    def forward(self, x):
        return self._conv_forward(x, self.weight.halves.to(x.dtype), self.bias)


def sealed(layer):
    """(the layer with such a weight, the values that it computes with)"""
    made = copy.copy(layer)
    made.__class__ = SealedConv if isinstance(layer, torch.nn.Conv2d) else SealedLinear
    weight = Sealed(layer.weight.detach())
    made.__dict__["_parameters"] = {**layer._parameters, "weight": torch.nn.Parameter(weight, requires_grad=False)}
    return made, weight.halves.float()


def scaled_fp8(layer):
    """The same with the host's own scaled fp8, as it loads such a file on a card without fp8."""
    sizes = layer.in_features, layer.out_features
    scale = layer.weight.detach().abs().max().float() / 448
    packed = (layer.weight.detach() / scale).to(torch.float8_e4m3fn)
    if hasattr(comfy.ops, "scaled_fp8_ops"):
        made = comfy.ops.scaled_fp8_ops(override_dtype=torch.float32).Linear(*sizes, bias=layer.bias is not None)
        made.weight = torch.nn.Parameter(packed, requires_grad=False)
        made.scale_weight = torch.nn.Parameter(scale, requires_grad=False)
    else:
        made = comfy.ops.mixed_precision_ops({}, torch.float32, full_precision_mm=True).Linear(
            *sizes, bias=layer.bias is not None
        )
        state = {"weight": packed, "weight_scale": scale}
        config = torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
        state |= {"comfy_quant": config, **({"bias": layer.bias.detach()} if layer.bias is not None else {})}
        made.load_state_dict(state)
    made.bias = layer.bias
    return made.eval(), packed.float() * scale


def packed_twins(make, pack, chosen=lambda name, layer: isinstance(layer, torch.nn.Linear) and "_blocks" in name):
    """(a MODEL with packed weights, one with the same values): pack(layer) -> (the packed layer, its values).

    make(): a MODEL; chosen(name, layer): which layers of its UNet are packed.
    """
    with_packed, twin = make(), make()
    unet, plain = with_packed.model.diffusion_model, twin.model.diffusion_model
    for name, layer in list(unet.named_modules()):
        if chosen(name, layer):
            made, values = pack(layer)
            parent, _, child = name.rpartition(".")
            unet.get_submodule(parent)._modules[child] = made
            plain.get_submodule(name).weight.copy_(values)
    return with_packed, twin
