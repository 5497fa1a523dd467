"""Runs of a MODEL without any noise, with guidance and all its patches: from a picture to noise, and back."""

from functools import partial

import comfy.samplers
import torch

from ..host.unet_inputs import input_root


def inverted_with_guidance(model, texts, cfg, latent, levels, callback):
    """The latents [(b, C, h, w), ...] of pictures at each of ascending noise levels, on the CPU.

    latent: the pictures, which count as being at the lowest of the levels; texts: positive and negative CONDITIONING;
    cfg: up to 1, the positive one alone counts; callback: the host's, called after each evaluation. All latents are in
    the UNet's units. One evaluation for each further level: x <- x + (sigma_t - sigma_(t-1)) * eps(x, t) in the
    sampler's units, DDIM run backwards (arXiv 2010.02502, section 4.3).
    """
    root = _root_of(model)
    way = _TowardsNoise(root)
    _run(model, texts, cfg, latent * root(levels[0]), levels, way, callback)
    return [latent, *way.found]


def sampled_back(model, texts, cfg, latent, levels, callback):
    """The way back from the highest of the levels to the lowest one, by the host's Euler steps; all as above."""
    euler, root = comfy.samplers.ksampler("euler"), _root_of(model)
    return _run(model, texts, cfg, latent * root(levels[-1]), levels, euler, callback) / root(levels[0])


def _root_of(model):
    return partial(input_root, model.get_model_object("model_sampling"))


def _run(model, texts, cfg, latent, levels, sampler, callback):
    """What a sampler of the host makes of a latent that it begins with as it is; in the sampler's units."""
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(*texts)
    guider.set_cfg(max(1.0, cfg))
    begin, sigmas = model.model.process_latent_out(latent), torch.tensor(levels[::-1])
    made = guider.sample(torch.zeros_like(begin), begin, sampler, sigmas, callback=callback, disable_pbar=True, seed=0)
    return model.model.process_latent_in(made.cpu())


class _TowardsNoise(comfy.samplers.Sampler):
    """A sampler of the host that goes up its noise levels; what it finds is kept aside, in the UNet's units."""

    def __init__(self, root):
        """root(level): of a latent, see input_root."""
        self.found, self.root = [], root

    def sample(self, guider, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None,
               disable_pbar=False):  # fmt: skip
        x, levels = latent_image, sigmas.tolist()[::-1]
        for number, (before, level) in enumerate(zip(levels, levels[1:])):
            # the UNet sees the latent as it is, and is told the level that it shall reach
            seen = x * self.root(level) / self.root(before)
            denoised = guider(seen, torch.full((len(x),), level, device=x.device), **extra_args)
            x = x + (level - before) * (seen - denoised) / level
            self.found.append((x / self.root(level)).cpu())
            callback(number, denoised, x, len(levels) - 1)
        return x
