"""Gradients in a server that runs everything in inference mode, without a second copy of the weights.

The host's weights are inference tensors, which cannot be saved for a backward pass. Inside `differentiable()` every
function of torch gets normal tensors that share their memory.
"""

from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only


@contextmanager
def differentiable():
    """Inside, gradients can be taken with respect to tensors made inside, and all weights are constants."""
    with torch.inference_mode(False), torch.enable_grad(), _NormalTensors():
        yield


class _NormalTensors(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        args, kwargs = tree_map_only(torch.Tensor, _normal, (args, kwargs or {}))
        return function(*args, **kwargs)


def normal(tensor):
    """The same memory under a tensor that a gradient may save, made outside of inference mode."""
    # inside differentiable() the tensor would be told of as if it were normal already
    with torch._C.DisableTorchFunction():
        if not tensor.is_inference() or torch.is_inference_mode_enabled():
            return tensor
        view = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        return view.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())


def _normal(tensor):
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        # a packed one: see packed_weights
        return tensor
    with torch._C.DisableTorchFunction():
        if tensor.is_inference():
            return normal(tensor)
        # older hosts leave weights trainable
        if isinstance(tensor, torch.nn.Parameter) and tensor.requires_grad:
            return tensor.detach()
    return tensor
