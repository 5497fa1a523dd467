"""A forward of the UNet that ends early: nothing is computed behind the last block that somebody needs."""

from contextlib import suppress
from typing import NamedTuple

import torch

from .calls import grid_of, heads_of, with_replacements


class PassEnded(Exception):  # noqa: N818 (no error: it ends a pass)
    """Raised by a patch once all that a pass was made for is there; `may_end_early` catches it."""


def may_end_early():
    """Inside, a patch may end the pass by raising PassEnded."""
    return suppress(PassEnded)


class SelfAttention(NamedTuple):
    """What one self-attention was called with."""

    q: torch.Tensor  # (rows, n, c)
    k: torch.Tensor  # (rows, n, c)
    heads: int
    grid: tuple  # (h, w) of its n tokens


def run_to(block, unet, inputs, options):
    """The SelfAttention at a block; nothing behind it is computed.

    block: a host key; unet: (x, timesteps, context, y, control, options) -> eps; inputs: its first four; options: the
    transformer options, which are not changed. Raises LookupError for a block that the UNet does not run.
    """
    caught = []

    def catch(q, k, v, options):
        caught.append(SelfAttention(q, k, heads_of(options), grid_of(options)))
        raise PassEnded

    with may_end_early():
        unet(*inputs, None, with_replacements(options, {("attn1", block): lambda inner: catch}))
    return caught[0]
