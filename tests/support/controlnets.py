"""A ControlNet of the host for the tiny models."""

import json

import comfy.cldm.cldm
import comfy.controlnet
import comfy.model_detection
import comfy.model_management as mm
import comfy.ops
import torch
from support.golden_data import case
from support.models import random_weights


def controlnet(model):
    """A ControlNet of random weights for a tiny MODEL."""
    config = dict(model.model.model_config.unet_config)
    for name in ("out_channels", "transformer_depth_output"):
        config.pop(name, None)
    config["dtype"] = torch.float32
    net = comfy.cldm.cldm.ControlNet(hint_channels=3, operations=comfy.ops.disable_weight_init, **config)
    net.load_state_dict(random_weights(net.state_dict(), seed=77))
    return comfy.controlnet.ControlNet(net.eval(), load_device=mm.get_torch_device())


def identity_net():
    """The recorded IdentityNet as the host's own loader gives it: the tiny SDXL UNet's tensors, and its own.

    The host tells a net's configuration by the published sizes, so that of the tiny UNet is given to it.
    """
    shared, metadata = case("tiny_sdxl_unet")
    own, _ = case("instantid/weights_identitynet")
    left_out = ("up_blocks", "conv_norm_out", "conv_out")
    state = {name: t.float() for name, t in shared.items() if not name.startswith(left_out)}
    state |= {name: t.float() for name, t in own.items()}
    config = json.loads(metadata["comfyui_unet_config"]) | {"dtype": torch.float32}
    detection = comfy.model_detection
    original, detection.unet_config_from_diffusers_unet = detection.unet_config_from_diffusers_unet, lambda *_: config
    try:
        return comfy.controlnet.load_controlnet_state_dict(state)
    finally:
        detection.unet_config_from_diffusers_unet = original
