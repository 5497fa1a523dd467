"""How far guidance may move a latent in one step of a sampler."""


def held_to_step(shift, sigma, next_sigma):
    """(shift, which of its images were held (b,) bool): no image moves further than a step of the sampler would.

    shift (b, C, h, w): what guidance adds to the sampler's latent at `sigma`. A step from there to `next_sigma` takes
    away their difference in noise of unit variance: that is the most that the root mean square of an image's shift may
    be. Beyond it the latent leaves what the model knows, each step further, and the picture ends as noise.
    """
    limit = abs(sigma - next_sigma)
    size = shift.flatten(1).float().square().mean(1).sqrt()
    held = size > limit
    factor = (limit / size).where(held, size.new_ones(()))
    return shift * factor.to(shift)[:, None, None, None], held
