"""DDIM inversion: the noise that a model would have to start from to make a given picture, at every noise level."""

import comfy.model_management as mm
import comfy.model_sampling
import comfy.utils
import torch

from ..host.calls import bare_forward, channels_of, clean_options, live_unet, noise_levels
from ..host.text_rows import one_text
from ..host.unet_inputs import compute_dtype, input_root, unet_inputs
from ..host.when import whole_timestep


def levels_of(sampling, steps, schedule):
    """The noise levels (sigmas, ascending) of an inversion: `steps` evenly spaced ones from timestep 1 on, or (0) those
    of a sampler's schedule. Where `steps` divides 1000 there are as many; others go on to the last timestep.
    """
    if not steps:
        return sorted({float(sigma) for sigma in schedule if sigma > 0})
    stride = 1000 // steps
    return sorted({level_at(sampling, t) for t in range(1, 1000, stride)})


def level_at(sampling, timestep):
    """The noise level (sigma) of one of the 1000 timesteps; distilled models have fewer levels than that."""
    levels = noise_levels(sampling)
    if len(levels) == 1000:
        return float(levels[timestep])
    return float(sampling.sigma(torch.tensor([timestep]))[0])


def inverted(base, latent, text, levels):
    """The latents (n, C, h, w) in the UNet's units (variance preserving) at n ascending noise levels, on the CPU.

    latent (1, C, h, w): the picture in the sampler's units, on the device where the model runs; text: (context, values)
    of what it shows. One UNet call per level, guidance 1, nobody's patches:
    x <- x + (sigma_t - sigma_(t-1)) * eps(x, t) in the sampler's units, which is DDIM's formula (arXiv 2010.02502,
    section 4.3) run backwards; the picture itself counts as the model's lowest level. Interruptible; shows its progress
    on the node.
    """
    device, dtype, sampling = latent.device, compute_dtype(base), base.model_sampling
    inputs = unet_inputs(base, *text, latent.float().cpu())
    like = torch.empty(0, device=device, dtype=dtype)
    batch = one_text(inputs, live_unet(base), like)
    progress = comfy.utils.ProgressBar(len(levels))
    x, before, found = latent.float(), float(noise_levels(sampling)[0]), []
    x = x * input_root(sampling, before)
    for number, level in enumerate(levels, 1):
        mm.throw_exception_if_processing_interrupted()
        sigma = torch.full((1,), level, device=device)
        timestep = sampling.timestep(sigma).float()
        z = x / input_root(sampling, before)
        rows = inputs.beside(z, channels_of(base), latent).to(dtype)
        options = batch.read_by(clean_options(level, device, schedule=levels[::-1]), whole_timestep(level, sampling))
        out = bare_forward(base)(rows, timestep, batch.context, batch.y, None, options).float()
        x = x + (level - before) * _noise(sampling, out, z, sigma)
        before = level
        found.append((x / input_root(sampling, level)).cpu())
        progress.update_absolute(number)
    return torch.cat(found)


def _noise(sampling, out, z, sigma):
    """The noise that the model sees in its input z, whatever it predicts."""
    if type(sampling).calculate_denoised is comfy.model_sampling.EPS.calculate_denoised:
        return out
    x = z * input_root(sampling, float(sigma))
    return (x - sampling.calculate_denoised(sigma, out, x)) / sigma
