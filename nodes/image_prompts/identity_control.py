"""Whether a CONTROL_NET can be InstantID's IdentityNet, and whether faces lie where their people may act."""

import copy

import comfy.cldm.cldm
import comfy.controlnet
import comfy.model_patcher
import torch

from ..host.devices import with_factory
from ..host.messages import input_error, warn_user
from ..references.reference_views import label_of

# Of the picture of keypoints.
PICTURE_CHANNELS = 3


def checked_net(control_net, adapter):
    """The host's ControlNet; ValueError for one that cannot be the IdentityNet beside an adapter."""
    net = getattr(control_net, "control_model", None)
    reason = None
    if isinstance(control_net, comfy.controlnet.ControlLora) or not isinstance(net, comfy.cldm.cldm.ControlNet):
        reason = f"this is a {type(control_net).__name__} of another kind"
    elif _context_width(net) != adapter.width:
        reason = f"this one reads a context of {_context_width(net)}, it must read {adapter.width}"
    elif _picture_channels(net) != PICTURE_CHANNELS:
        reason = f"this one takes pictures of {_picture_channels(net)} channels, it must take {PICTURE_CHANNELS}"
    elif net.control_add_embedding is not None:
        reason = "this one is a union of several ControlNets"
    if reason:
        raise input_error(
            f"IdentityNet is the ControlNet that comes with InstantID (ControlNetModel), for SDXL: {reason}; load it "
            "with Load ControlNet Model and connect it"
        )
    return control_net


def patcher_of(control_net):
    """A handle of ours on the host's ControlNet, which the host can copy to a further device."""
    own = control_net.control_model_wrapped.clone()
    return with_factory(own, _another, own)


def tell_of_faces_outside(references, faces, regions):
    """Says which person's face, as it is placed, does not lie in the person's own region."""
    for number, (reference, face, region) in enumerate(zip(references, faces, regions, strict=True), 1):
        if region is None:
            continue
        x, y = face.at(region.shape).mean(0).tolist()
        row, column = (min(max(int(at), 0), side - 1) for at, side in zip((y, x), region.shape, strict=True))
        if region[row, column] < 0.5:
            warn_user(
                f"{label_of(number, reference)}: the face that places this person lies outside of its region, so "
                "IdentityNet hardly acts; use a pose_image in which it lies inside, or another region"
            )


def _context_width(net):
    return next((one.attn2.to_k.in_features for one in net.modules() if hasattr(one, "attn2")), None)


def _picture_channels(net):
    return net.input_hint_block[0].weight.shape[1]


def _another(patcher, **settings):
    """A handle on a copy of the net; settings: in what form a host that makes copies wants it."""
    # weights made in inference mode could not be saved for a gradient
    with torch.inference_mode(False), torch.no_grad():
        net = copy.deepcopy(patcher.model)
    devices = {"load_device": patcher.load_device, "offload_device": patcher.offload_device}
    return with_factory(comfy.model_patcher.ModelPatcher(net, **devices), _another, patcher)
