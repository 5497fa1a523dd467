"""Which pictures of the batch the rows of a call show: other packs sample long batches (frames) in windows."""

import torch

from .calls import frames_of_motion, window_of

# How far a row may be from the latent that it is made of, beside the largest value.
AS_GIVEN = 1e-3


def pictures_shown(call, options):
    """The numbers [n] of the pictures that a chunk's n rows show, None where nobody can tell.

    The host's context windows and AnimateDiff say which rows they run; of other packs' windows the rows themselves
    tell, beside the latents of the sampler.
    """
    chunk = call.chunks[0]
    rows, many = chunk.stop - chunk.start, call.run.shape[0]
    dimension, window = window_of(options) or (None, ())
    if dimension == 0 and len(window) == rows:
        return list(window)
    frames = frames_of_motion(options)
    if len(frames) == rows:
        return list(frames)
    if rows == many:
        return list(range(rows))
    return _found(call, rows) if call.run.latents is not None else None


def _found(call, rows):
    latents = call.run.latents
    sigma = torch.full((len(latents),), call.moment.sigma, device=latents.device)
    inputs = call.base.model_sampling.calculate_input(sigma, latents).to(call.x)
    shown = call.x[call.chunks[0].rows][:, : latents.shape[1]]
    if inputs.shape[1:] != shown.shape[1:]:
        return None
    apart = (shown[:, None] - inputs[None]).flatten(2).abs().amax(2)
    nearest, numbers = apart.min(1)
    return numbers.tolist() if bool((nearest <= AS_GIVEN * inputs.abs().max()).all()) else None
