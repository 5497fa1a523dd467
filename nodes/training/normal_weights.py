"""Networks that a gradient may pass, for the time of a training: their weights, sums in place, and blocks.

A server makes weights in inference mode, where nothing can be saved for a way back. `host.gradients.differentiable`
swaps them call by call, but what a checkpoint computes again runs where no such mode reaches; so here the weights
themselves are swapped, for tensors over the same memory.
"""

import copy
from collections import OrderedDict
from contextlib import contextmanager
from functools import partial

import torch
from torch.utils.checkpoint import checkpoint

from ..host.blocks import holds_features
from ..host.gradients import normal
from ..host.packed_weights import is_packed, unpacking

_NORMS = ("layer_norm1", "layer_norm2")


@contextmanager
def normal_weights(*networks):
    """Inside, weights and buffers of the networks are constants that a way back may save; outside all is as before."""
    replaced = []
    try:
        with torch.inference_mode(False):
            for module in (module for network in networks for module in network.modules()):
                for own in (module._parameters, module._buffers):
                    for name, tensor in list(own.items()):
                        # packed ones compute by rules of their own
                        if type(tensor) in (torch.Tensor, torch.nn.Parameter):
                            replaced.append((own, name, tensor))
                            own[name] = _constant(tensor)
        yield
    finally:
        for own, name, tensor in reversed(replaced):
            own[name] = tensor


def _constant(tensor):
    made = normal(tensor).detach()
    return torch.nn.Parameter(made, requires_grad=False) if isinstance(tensor, torch.nn.Parameter) else made


@contextmanager
def packed_passed(*networks):
    """Inside, layers with packed weights compute with their values: as they are, some let no gradient through."""
    replaced = []
    try:
        for layer in (module for network in networks for module in network.modules()):
            if is_packed(layer):
                # as it is, without the LoRA beside it, where its values are asked for
                bare = copy.copy(layer)
                bare.__dict__["_forward_hooks"] = OrderedDict()
                made = unpacking(bare)
                if made is not bare:
                    replaced.append((layer, layer.__dict__.get("forward")))
                    layer.forward = made.forward
        yield
    finally:
        for layer, own in reversed(replaced):
            del layer.forward
            if own is not None:
                layer.forward = own


@contextmanager
def summed_apart(network):
    """Inside, the layers of the host's text encoders in a network can be gone back through.

    They add to their input in place, which the norms before have saved: these get a copy.
    """
    norms = [module for name, module in network.named_modules() if name.rpartition(".")[2] in _NORMS]
    hooks = [norm.register_forward_pre_hook(_copied) for norm in norms]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _copied(module, inputs):
    return inputs[0].clone(), *inputs[1:]


@contextmanager
def checkpointed(unet, on=True):
    """Inside, the UNet's blocks keep their input alone and compute again what a way back needs."""
    blocks = [block for block in unet.modules() if on and holds_features(block)]
    standing = [block.__dict__.get("forward") for block in blocks]
    for block in blocks:
        block.forward = partial(_again, block.forward)
    try:
        yield
    finally:
        for block, own in zip(blocks, standing, strict=True):
            del block.forward
            if own is not None:
                block.forward = own


def _again(forward, *inputs):
    # the host writes into one dict at which block it is: what is computed again must find what stood there
    kept = [dict(one) if isinstance(one, dict) else one for one in inputs]
    return checkpoint(forward, *kept, use_reentrant=False, preserve_rng_state=False)
