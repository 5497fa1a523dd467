"""The way of a picture to noise, as a run needs it: made once, and kept on disk for the next time."""

import torch

from ..host.bare_unet import bare_unet
from . import inversion_cache
from .inversion import inverted, levels_of


class Inversion:
    """A picture at ascending noise levels."""

    def __init__(self, sampling, levels, latents):
        """levels: noise levels (sigmas); latents (n, C, h, w): the picture at each, in the UNet's units."""
        self.timesteps = [float(sampling.timestep(torch.tensor([level]))[0]) for level in levels]
        self.latents = latents

    def at(self, timestep):
        """(1, C, h, w) in the UNet's units, of the nearest level."""
        nearest = min(range(len(self.timesteps)), key=lambda i: abs(self.timesteps[i] - timestep))
        return self.latents[nearest : nearest + 1]


def inversion_of(base, latent, text, steps, schedule, kind, cache_bytes):
    """The Inversion of a latent (1, C, h, w) in the sampler's units: from disk where there is one.

    text: (context, values) of what it shows; steps: of the inversion, 0: those of a sampler's schedule; kind: of the
    picture, one of inversion_cache's; cache_bytes: what pictures of that kind may take on disk, 0: none is read or
    kept. Of the bare UNet: modules that other packs put in for a film have nothing to do with one picture.
    """
    with bare_unet(base):
        levels = levels_of(base.model_sampling, steps, schedule)
        key = None
        if cache_bytes:
            key = inversion_cache.key_of(base, latent, text, levels)
            latents = inversion_cache.load(kind, key, (len(levels), *latent.shape[1:]))
            if latents is not None:
                return Inversion(base.model_sampling, levels, latents)
        latents = inverted(base, latent, text, levels)
        if key:
            inversion_cache.save(kind, key, latents, cache_bytes)
        return Inversion(base.model_sampling, levels, latents)
