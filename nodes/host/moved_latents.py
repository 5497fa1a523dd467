"""Latents of the sampler that techniques of ours move before a step."""

from .compiled import uncompiled


def moved(x, step, techniques):
    """By how much the latents x (b, C, h, w) of a step have been moved, in place: the sum of what each technique says.

    In place, so that the sampler's own latent moves, not only what this step sees. None where nobody moves it.
    """
    with uncompiled():
        shifts = [shift for shift in (technique.shift(step) for technique in techniques) if shift is not None]
    if not shifts:
        return None
    shift = sum(shifts)
    x += shift
    return shift


def after_move(denoised, shift, step):
    """What a step that was moved denoises to, where a noise mask keeps a part of the picture.

    The host puts the masked part back on a copy of the latent, so the sampler's own did not move. A step goes to
    d + r (x - d), with r = next sigma / sigma and d = denoised: moving x by s would end it r s further, and so does
    moving d by s r / (1 - r).
    """
    if shift is None or not step.run.masked:
        return denoised
    ratio = step.next_sigma / step.moment.sigma
    if ratio >= 1:
        # no step at all, and what it is moved by is held to that
        return denoised
    return denoised + shift * (ratio / (1 - ratio))
