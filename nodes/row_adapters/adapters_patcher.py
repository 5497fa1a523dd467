"""The host's handle on the tensors of all adapters: where the base MODEL runs, and on each device that it runs on."""

import comfy.model_patcher
import torch

from ..host.devices import with_factory


def adapters_patcher(base, layers):
    """The handle on the tensors of {name: LayerDeltas}; child number i of its module has those of the i-th layer."""
    module = torch.nn.Module()
    for number, deltas in enumerate(layers.values()):
        module.add_module(str(number), deltas.tensors)
    return _patcher(module, base.load_device, base.offload_device)


def _patcher(module, load_device, offload_device):
    patcher = comfy.model_patcher.ModelPatcher(module, load_device=load_device, offload_device=offload_device)
    return with_factory(patcher, _another, module, load_device, offload_device)


def _another(module, load_device, offload_device, **settings):
    """A handle on copies of the tensors: what the host has noted on the module is not copied.

    settings: in what form a host that makes copies wants it; there is but one.
    """
    copied = torch.nn.Module()
    # tensors made in inference mode could not be saved for a gradient
    with torch.inference_mode(False), torch.no_grad():
        for name, child in module.named_children():
            part = torch.nn.Module()
            for key, tensor in child.named_parameters():
                tensor = torch.nn.Parameter(tensor.to(offload_device, copy=True), requires_grad=False)
                part.register_parameter(key, tensor)
            copied.add_module(name, part)
    return _patcher(copied, load_device, offload_device)
