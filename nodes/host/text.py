"""Prompts that a node encodes itself, with the CLIP it is given, and what a model makes of them."""

import torch

from .say import refusal


def tokenized(clip, text):
    """The tokens of a text, as the host's CLIP hands them out."""
    if clip is None:
        raise refusal(
            "clip is empty: this checkpoint holds no text encoder; load one with a CLIP loader and connect it"
        )
    return clip.tokenize(text)


def encoded(clip, text):
    """The conditioning of a text: (cross_attn (1, L, D), the dictionary of its other values)."""
    tensor, values = clip.encode_from_tokens_scheduled(tokenized(clip, text))[0]
    return tensor, values


def unet_inputs(base, cross_attn, values, latent):
    """What the host makes of a conditioning for this model: {"c_crossattn", "y", "c_concat"} of those that it has.

    latent (1, C, h, w) in the VAE's units gives the size and the picture of editing models. On the CPU, in float32.
    """
    model_latent = base.process_latent_in(latent)
    height, width = (8 * side for side in latent.shape[-2:])
    inputs = base.extra_conds(
        **{"width": width, "height": height, "prompt_type": "positive"} | values,
        cross_attn=cross_attn,
        noise=model_latent,
        device=model_latent.device,
        latent_image=model_latent,
        concat_latent_image=latent,
        concat_mask=torch.zeros_like(latent[:, :1]),
    )
    names = ("c_crossattn", "y", "c_concat")
    return {name: inputs[name].cond.float().cpu() for name in names if name in inputs}
