"""Contexts with two rows for each token, its key and its value by turns: of CLIPs for negative prompt weights.

A patch of the MODEL takes them apart at each cross-attention. What of us runs without that patch, or counts tokens,
takes them apart here.
"""

import torch

from .token_runs import PART_TOKENS


def taken_apart(context):
    """(keys, values) (b, T / 2, D) of a context (b, T, D) of such rows, (context, None) of any other.

    values: None where they are the keys, so where no weight is negative. A negative one turns the sign of a token's
    value alone, and in an ordinary context no row is like its neighbour.
    """
    if context is None or context.is_meta or context.ndim != 3 or context.shape[1] % (2 * PART_TOKENS):
        return context, None
    keys, values = context[:, 0::2], context[:, 1::2]
    alike = (keys.abs() == values.abs()).all(-1) & keys.any(-1)
    if 2 * int(alike.sum()) <= alike.numel():
        return context, None
    return keys, None if torch.equal(keys, values) else values


def contexts_taken_apart(contexts):
    """The Contexts with keys and values of their own where they have such rows, else as they are; None for None."""
    return None if contexts is None else contexts.mapped(_apart)


def _apart(keys, values):
    keys, of_keys = taken_apart(keys)
    if values is None:
        return keys, of_keys
    plain, signed = taken_apart(values)
    return keys, plain if signed is None else signed


class PairedValues:
    """An attn2_patch for one call of the UNet: rows whose values are not their keys read both."""

    def __init__(self, rows):
        """rows: [(slice of the batch, values (rows, T, D))]."""
        self.rows = rows

    def __call__(self, n, context, value, options):
        value = value.clone()
        for rows, own in self.rows:
            # a shorter text is repeated beside a longer one
            value[rows] = own.repeat(1, value.shape[1] // own.shape[1], 1).to(value)
        return n, context, value
