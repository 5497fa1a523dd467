"""Files that are mistaken for IP-Adapter files, each named for what it is and where it belongs."""

import re

from ..host.messages import input_error

OWN = "the nodes of a pack made for it"
# A pattern of keys that only such a file has, what it is, and what to use; the first that matches counts.
OTHERS = (
    (r"ms_adapter\.|.*\bdummy_image_tokens|.*\bgrounding_latents", "an MS-Diffusion file", OWN),
    (r".*\bto_[kv]_img\.", "a MasterWeaver file", OWN),
    (r"pulid|id_adapter", "a PuLID file", OWN),
    (r"id_encoder\.", "a PhotoMaker file", "the PhotoMaker loader, from models/photomaker"),
    (r"ip_adapter\.0\.to_[kv]_ip\.|.*\b(double|single)_blocks\.", "a FLUX or SD3 adapter", f"{OWN} and such a model"),
    (r".*(lora_(up|down|unet|te|[AB]\b)|\.lora\.|hada_w|lokr_w)", "a LoRA", "Load LoRA, from models/loras"),
    (
        r"(control_model|controlnet_\w+|input_hint_block|control_add_embedding)\.",
        "a ControlNet",
        "Load ControlNet Model, from models/controlnet",
    ),
    (r"(adapter\.)?body\.\d", "a T2I-Adapter", "Load ControlNet Model, from models/controlnet"),
    (
        r"(model\.diffusion_model|cond_stage_model|conditioner|first_stage_model)\.",
        "a checkpoint",
        "Load Checkpoint, from models/checkpoints",
    ),
    (
        r"(unet\.)?(down|mid|up|input|middle|output)_blocks?\.",
        "a UNet",
        "Load Diffusion Model, from models/diffusion_models",
    ),
    (r"(vision_model|visual|visual_projection)\.", "a vision encoder", "Load CLIP Vision, from models/clip_vision"),
    (r"(text_model|transformer\.text_model)\.", "a text encoder", "Load CLIP, from models/text_encoders"),
    (r"(encoder|decoder|quant_conv|post_quant_conv)\.", "a VAE", "Load VAE, from models/vae"),
)
# Kolors' Resampler, and the width of its text.
KOLORS, KOLORS_TEXT = 2048, 4096


def refuse_others(shapes, name):
    """Raises ValueError, saying what it is, for the {name: shape} of a file of another technique."""
    found = _by_names(shapes) or _by_shapes(shapes)
    if found:
        what, use = found
        raise input_error(f"{name}: this is {what}; use {use}. This node needs an IP-Adapter or MIP-Adapter file")


def _by_names(shapes):
    for pattern, what, use in OTHERS:
        if any(re.match(pattern, key) for key in shapes):
            return what, use
    return None


def _by_shapes(shapes):
    """What shares its names with others: (what it is, what to use), or None."""
    if shapes.get("image_proj.latents", ())[-1:] == (KOLORS,):
        return "a Kolors adapter", f"{OWN} and a Kolors model"
    if shapes.get("image_proj.perceiver_resampler.proj_in.weight", ())[:1] == (KOLORS_TEXT,):
        return "a Kolors FaceID file", f"{OWN} and a Kolors model"
    return None
