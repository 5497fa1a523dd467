"""Patches of weights: put into a MODEL or CLIP all or not at all, by the host's keys, in a dtype fine enough."""

import comfy.utils
import torch

from .messages import input_error


def with_weight_patches(owner, patches, strength=1.0, strength_model=1.0, what="model"):
    """A clone of a MODEL or of a CLIP with {key: patch}; ValueError, naming `what` it is, where it takes not all.

    The weights become strength_model * W + strength * the patch, as the host has it.
    """
    clone = owner.clone()
    # the host skips keys that it does not know without a word
    if set(clone.add_patches(patches, strength, strength_model)) != set(patches):
        raise input_error(f"this {what} does not accept weight patches; connect one from a checkpoint loader")
    return clone


def keys_by_diffusers(base):
    """{diffusers' name of a weight or bias: the host's key, without the UNet's prefix} of the host's BaseModel.

    The host's list also names modules that the UNet does not have.
    """
    return comfy.utils.unet_to_diffusers(base.model_config.unet_config)


def fine(dtype):
    """A dtype for changes of weights that are held, or computed with, in another one: 8 bits are too coarse."""
    return dtype if dtype.is_floating_point and dtype.itemsize > 1 else torch.float16
