"""Golden Noise for samplers without a noise socket: a MODEL whose runs begin with the golden noise of their own."""

import comfy.sample
import torch

from ..host.attach import unwrap_runs, wrap_runs
from ..host.calls import noise_levels, seed_of_run
from ..host.messages import input_error, log_info, warn_user
from .golden_noise import LATENT_CHANNELS

_KEY = "personalization_npnet"
# Schedules may round their first noise level; one step of a thousand lies 0.6 % below.
FULL = 0.998


def attach_golden_noise(model, improver):
    """A clone of the MODEL that improves the noise of runs at full denoise; the MODEL itself at strength 0.

    Of several on one MODEL the last acts. Raises ValueError for a model of other latents.
    """
    channels = model.model.latent_format.latent_channels
    if channels != LATENT_CHANNELS:
        name = type(model.model).__name__
        raise input_error(
            f"NPNet needs latents with 4 channels, {name} has {channels}; connect an SDXL or Hunyuan-DiT model"
        )
    if improver.strength == 0:
        return model
    return wrap_runs(model, _KEY, GoldenRuns(improver))


def without_golden_noise(model):
    """A clone of the MODEL that samples from the noise it is given."""
    return unwrap_runs(model, _KEY)


class GoldenRuns:
    """An OUTER_SAMPLE wrapper; the noise is still on the CPU and of unit variance there. Immutable."""

    def __init__(self, improver):
        self.improver = improver

    def __call__(self, executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
        if torch.any(noise):
            sampling = executor.class_obj.model_patcher.get_model_object("model_sampling")
            if begins_at_full_noise(sigmas, sampling):
                seed = seed_of_run(args, kwargs)
                noise = self.improver(noise, seed or 0, lambda side: _drawn(noise, seed, side))
            else:
                log_info("this run does not start from full noise; Golden Noise leaves it as it is")
        return executor(noise, latent_image, sampler, sigmas, *args, **kwargs)


def begins_at_full_noise(sigmas, sampling):
    """True if a schedule begins where a full denoise does: at the maximum, or where ddim_uniform begins."""
    first = float(sigmas[0])
    if first >= FULL * float(sampling.sigma_max):
        return True
    levels = noise_levels(sampling)
    if levels is None or len(sigmas) < 2:
        return False
    # ddim_uniform takes the levels 1, 1 + s, 1 + 2s, ...; a full one goes as far as there are levels
    start, following = ((levels - float(sigma)).abs().argmin().item() for sigma in sigmas[:2].cpu())
    stride = start - following
    if stride <= 0 or abs(float(levels[start]) - first) > 1e-5 * first:
        return False
    return start == 1 + stride * ((len(levels) - 2) // stride)


def _drawn(noise, seed, side):
    """The sampler's noise at another size, or None if it is not what the seed gives."""
    if seed is not None and torch.equal(comfy.sample.prepare_noise(torch.zeros_like(noise), seed), noise):
        return comfy.sample.prepare_noise(noise.new_zeros(*noise.shape[:2], side, side), seed)
    warn_user('size_mode "resize" needs noise drawn from the sampler\'s own seed; "tile" is used instead')
    return None
