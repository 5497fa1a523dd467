"""Golden Noise for samplers without a noise socket: a MODEL whose runs begin with the golden noise of their own."""

import comfy.sample
import torch

from ..host.attach import unwrap_runs, wrap_runs
from ..host.calls import noise_levels, seed_of_run
from ..host.messages import input_error, log_info, warn_user
from ..host.node_pictures import running_node
from .golden_noise import LATENT_CHANNELS
from .noise_picture import show_change

_KEY = "personalization_npnet"
# Schedules may round their first noise level; one step of a thousand lies 0.6 % below.
FULL = 0.998
# Pictures of one batch, or frames, of which some may be sampled by themselves.
LONGEST_BATCH = 1024


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
        self.node = running_node()

    def __call__(self, executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
        sampling = executor.class_obj.model_patcher.get_model_object("model_sampling")
        full, added = begins_at_full_noise(sigmas, sampling), bool(torch.any(noise))
        if full and added:
            seed = seed_of_run(args, kwargs)
            golden = self.improver(noise, seed or 0, lambda side: _drawn(noise, seed, side))
            show_change(noise, golden, self.node)
            noise = golden
        elif full:
            warn_user(
                "this sampler brings its own noise in the latent, so Golden Noise changes nothing; use a sampler that "
                "adds the noise, or the node Golden Noise before SamplerCustomAdvanced"
            )
        elif added:
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
    square = noise.new_zeros(*noise.shape[:2], side, side)
    if seed is not None:
        if torch.equal(comfy.sample.prepare_noise(torch.zeros_like(noise), seed), noise):
            return comfy.sample.prepare_noise(square, seed)
        numbers = _numbers_of(noise, seed)
        if numbers is not None:
            return comfy.sample.prepare_noise(square, seed, numbers)
    warn_user('size_mode "resize" needs noise drawn from the sampler\'s own seed; "tile" is used instead')
    return None


def _numbers_of(noise, seed):
    """Which pictures of a seed's batch the rows (b, 4, h, w) are noise for, as Latent From Batch takes some out of it;
    None if they are not.
    """
    generator, found = torch.Generator().manual_seed(seed), {}
    for number in range(LONGEST_BATCH):
        drawn = torch.randn(1, *noise.shape[1:], generator=generator).to(noise)[0]
        for row in range(len(noise)):
            if row not in found and torch.equal(drawn, noise[row]):
                found[row] = number
        if len(found) == len(noise):
            return [found[row] for row in range(len(noise))]
    return None
