"""MIP-Adapter (arXiv 2409.17920) at a MODEL: several image prompts, each on its own object."""

from types import SimpleNamespace

import comfy.model_management
import torch


def encode_pixels(clip_vision, pixels):
    """What a CLIP_VISION sees in normalised pixels (m, 3, H, W): image_embeds and penultimate_hidden_states.

    As `encode_image`, but without its preprocessing, which turns no picture into pixels that are all zero.
    """
    comfy.model_management.load_model_gpu(clip_vision.patcher)
    pixels = pixels.to(clip_vision.load_device, dtype=torch.float32)
    _, penultimate, embeds, _ = clip_vision.model(pixel_values=pixels, intermediate_output=-2)
    device = comfy.model_management.intermediate_device()
    return SimpleNamespace(image_embeds=embeds.to(device), penultimate_hidden_states=penultimate.to(device))
