"""What a training keeps in memory for its way back, and whether that fits."""

import math

import comfy.model_management as mm

from ..host.calls import live_unet
from ..latent_guidance.latent_gradient import bytes_kept

_GIB = 2**30
# Bytes of activations that a step keeps per latent pixel and picture, at two bytes a value: counted for the true UNets,
# by number of output blocks. Whole, and with checkpoints (whose last summand is one block's inside).
_WHOLE = {12: 2.11 * _GIB / 64**2, 9: 10.91 * _GIB / 128**2}
_CHECKPOINTED = {12: (0.08 + 0.4) * _GIB / 64**2, 9: (0.25 + 1.0) * _GIB / 128**2}


def kept_bytes(base, batch_size, side, checkpoint):
    """Bytes that a step on latents of a side keeps."""
    # of a narrower UNet as much less
    share = live_unet(base).model_channels / 320
    return batch_size * share * bytes_kept(base, (1, 4, side, side), _CHECKPOINTED if checkpoint else _WHOLE)


def chosen_checkpoint(setting, base, batch_size, side, device):
    """Whether blocks are computed again on the way back: as set, or where what they keep does not fit."""
    if setting != "auto":
        return setting == "on"
    return kept_bytes(base, batch_size, side, False) > mm.get_free_memory(device)


def memory_said(base, batch_size, side):
    """Words on what a step needs at least."""
    needed = math.ceil(10 * kept_bytes(base, batch_size, side, True) / _GIB) / 10
    return f"{needed} GB beside the weights, with checkpoint on and a batch of {batch_size}"
