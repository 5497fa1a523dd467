"""Single steps of the golden trainings on the host's tiny models, without a trainer: the losses' own ground."""

import torch
from support.clips import encoded
from support.golden_data import case
from support.word_files import concept_clip

from pack.nodes.host.calls import bare_forward, clean_options
from pack.nodes.text_contexts.concept_words import Word, with_words


def golden_case(name):
    """(tensors, parameters) of one golden training."""
    return case(f"training/{name}")


def clip_with(words):
    """The CLIP of the golden trainings with {name: rows (n, D)}, each row a token."""
    return with_words(concept_clip(), [Word(name, {"l": rows[:, None, None]}) for name, rows in words.items()])


def context_of(clip, prompt):
    """(1, T, D) of a prompt."""
    return encoded(clip, prompt)[0][0]


def noisy(latents, noise, timesteps):
    """x_t of SD's scaled-linear schedule."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    alpha = (1 - betas).cumprod(0)[timesteps].float()[:, None, None, None]
    return alpha.sqrt() * latents + (1 - alpha).sqrt() * noise


def predicted(model, latents, noise, timesteps, context, with_maps=lambda unet, options: options):
    """What a UNet makes of a noisy picture; with_maps(unet, options) may put something into the options."""
    base = model.model
    options = with_maps(base.diffusion_model, clean_options(1.0))
    x = noisy(latents, noise, timesteps)
    return bare_forward(base)(x, timesteps.float(), context.expand(len(x), -1, -1), None, None, options)
