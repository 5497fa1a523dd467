"""Pictures of what a training has learned so far: the host's own sampler, with the learned tensors in place."""

import comfy.sample
import torch

from ..host.attach import attach
from ..host.latents import LATENT_STEP
from ..host.panels import as_picture
from ..text_contexts.concept_words import with_words
from ..text_contexts.context_router import ContextRouter

_STEPS, _CFG, _SAMPLER, _SCHEDULER = 20, 5.0, "euler", "normal"


def preview_of(model, clip, vae, learned, prompt, side, seed):
    """One picture (1, S, S, 3) of a prompt; the LoRA's hooks stand in the networks, the words come with the prompt."""
    if learned.words:
        clip = with_words(clip, learned.as_words(every=True))
    if learned.layers:
        model = attach(model, ContextRouter(()))
    with torch.no_grad():
        positive, negative = (clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (prompt, ""))
        latent = torch.zeros(1, 4, side // LATENT_STEP, side // LATENT_STEP)
        noise = comfy.sample.prepare_noise(latent, seed)
        settings = (_STEPS, _CFG, _SAMPLER, _SCHEDULER, positive, negative, latent)
        samples = comfy.sample.sample(model, noise, *settings, disable_pbar=True, seed=seed)
        return vae.decode(samples)[:, :, :, :3].float().cpu().clamp(0, 1)


def as_shown(picture):
    """(kind, PIL picture, longest side) as the host's progress bar takes it."""
    return "JPEG", as_picture(picture[0]), 512
