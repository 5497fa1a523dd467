"""A ResAdapter set on one model: the model's own keys for its weights, checked in whole before anything is patched."""

import re

from ..files.lora_names import UNET_PREFIX
from ..host.families import family_of
from ..host.messages import input_error
from ..host.weight_patching import keys_by_diffusers
from .published_sets import SET_FAMILIES

# All that a ResAdapter changes: convolutions that halve or double the size, and the norms of the ResNet blocks.
_CHANGED = re.compile(r"(samplers\.0\.conv|resnets\.\d+\.norm[12])\.(weight|bias)$")


def fitted(adapter, model):
    """The set's weights by the MODEL's keys: ({key: {"down", "up", "alpha"}}, {key: norm}).

    Raises ValueError for another family, for a key that the model lacks and for a shape that does not fit.
    """
    check_family(adapter, model)
    shapes = {key: tuple(tensor.shape) for key, tensor in model.model.diffusion_model.state_dict().items()}
    keys = _keys(model)
    lora, norms = {}, {}
    for module, parts in adapter.convs.items():
        key = _known(keys, module, "weight", adapter, model)
        _check_conv(f"{module} in adapter_set {adapter.name}", parts, shapes[key])
        lora[UNET_PREFIX + key] = parts
    for module, parts in adapter.norms.items():
        for part, tensor in parts.items():
            key = _known(keys, module, part, adapter, model)
            _check_shape(f"{part} of {module} in adapter_set {adapter.name}", tensor, [shapes[key]])
            norms[UNET_PREFIX + key] = tensor
    return lora, norms


def check_family(adapter, model):
    """Raises ValueError unless the MODEL is SD1.5 or SDXL, and the set is for it."""
    family = check_model(model, "ResAdapter")
    if adapter.family not in (None, family):
        raise input_error(
            f"this is the {adapter.family} ResAdapter ({adapter.norm_count} norms, {len(adapter.convs)} convs); "
            f"the model is {family}: choose a set for {family} as adapter_set"
        )


def check_model(model, what):
    """The family of a MODEL. Raises ValueError, naming `what` needs it, unless it is SD1.5 or SDXL."""
    family = family_of(model)
    if family not in SET_FAMILIES:
        raise input_error(
            f"{what} works on SD1.5 and SDXL; this model is {family}: connect an SD1.5 or SDXL checkpoint"
        )
    return family


def diffusers_names(model):
    """{the MODEL's key: diffusers' name} of the weights that a ResAdapter may change."""
    state = model.model.diffusion_model.state_dict()
    names = keys_by_diffusers(model.model).items()
    return {UNET_PREFIX + key: name for name, key in names if _CHANGED.search(name) and key in state}


def _keys(model):
    """{(module, part): key}; modules in diffusers' words and in the host's, with "_" for dots."""
    found = {}
    for key, name in diffusers_names(model).items():
        key = key.removeprefix(UNET_PREFIX)
        for words in (name, key):
            module, part = words.rsplit(".", 1)
            found[module.replace(".", "_"), part] = key
    return found


def _known(keys, module, part, adapter, model):
    if (module, part) not in keys:
        raise input_error(
            f"adapter_set {adapter.name} changes {part} of {module}, which no ResAdapter for {family_of(model)} "
            "does; nothing was patched: choose another set or checkpoint"
        )
    return keys[module, part]


def _check_conv(module, parts, shape):
    down, up = parts["down"], parts["up"]
    if not min(down.ndim, up.ndim) or not down.shape[0] or parts.get("alpha", down.new_zeros(1)).numel() != 1:
        raise input_error(
            f"the LoRA of {module} has no rank (down {tuple(down.shape)}, up {tuple(up.shape)}) or several values of "
            "alpha; nothing was patched: download the set again"
        )
    rank = down.shape[0]
    _check_shape(f"LoRA down of {module}", down, [(rank, *shape[1:])])
    _check_shape(f"LoRA up of {module}", up, [(shape[0], rank, 1, 1), (shape[0], rank)])


def _check_shape(name, tensor, wanted):
    if tuple(tensor.shape) not in wanted:
        raise input_error(
            f"{name} has the shape {tuple(tensor.shape)}, this model needs {wanted[0]}; nothing was patched: choose "
            "a set for this model"
        )
