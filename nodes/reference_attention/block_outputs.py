"""The outputs of a UNet's blocks, where AdaIN takes and gives the statistics of features: watched for one call."""

from contextlib import contextmanager

from ..host.blocks import block_layers, holds_features, residual_levels

# Variances below this count as it.
LEAST = 1e-6


def places_of(unet, amount):
    """The (name, number) of the blocks at which AdaIN of this amount (0 to 2) acts, in order of execution.

    The middle first, then the deep ones: a level l of n joins on the way down from 2 (1 - l / n) on, on the way up from
    2 l / n on (diffusers' community pipelines for reference-only).
    """
    if amount <= 0:
        return ()
    down, up = residual_levels(unet, "input"), residual_levels(unet, "output")
    levels = 1 + max(down.values())
    middle = [("middle", 0)] if unet.middle_block is not None else []
    return (
        *(place for place, level in down.items() if amount >= 2 * (1 - level / levels)),
        *middle,
        *(place for place, level in up.items() if amount >= 2 * level / levels),
    )


def moments(output, share):
    """(mean (C,), deviation (C,)) of one output (C, h, w) in float32, each cell counting by its share (h, w)."""
    share = share.to(output.device) / share.sum()
    output = output.float()
    mean = (output * share).sum((1, 2))
    variance = ((output - mean[:, None, None]).square() * share).sum((1, 2))
    return mean, variance.clamp_min(LEAST).sqrt()


def adain(output, mean, deviation):
    """Outputs (b, C, h, w) with the mean and the deviation (C,) of others in each channel (arXiv 1703.06868)."""
    wide = output.float()
    own = wide.var((2, 3), correction=0, keepdim=True).clamp_min(LEAST).sqrt()
    made = (wide - wide.mean((2, 3), keepdim=True)) / own * deviation[:, None, None] + mean[:, None, None]
    return made.to(output.dtype)


@contextmanager
def watched(unet, place, look):
    """While it lasts, look(output) sees what a block makes, ahead of what changes its resolution; what it returns, if
    anything, takes the output's place.
    """
    layer = [one for one in block_layers(unet, *place) if holds_features(one)][-1]
    handle = layer.register_forward_hook(lambda module, args, output: look(output))
    try:
        yield
    finally:
        handle.remove()
