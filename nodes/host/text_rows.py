"""Rows of the UNet by the text that they read: rows of one text, and several of them in one batch."""

import math
from dataclasses import dataclass

import comfy.utils
import torch

from .blocks import attention_blocks
from .calls import with_patches
from .layered_prompts import LayeredContexts

# The host repeats the shorter of two texts up to this often to batch them.
REPEATS = 4


@dataclass(frozen=True, eq=False)
class TextRows:
    """Neighbouring rows of one batch that read one text."""

    context: torch.Tensor  # (rows, T, D)
    y: torch.Tensor | None  # (rows, A)
    layers: torch.Tensor | None = None  # (L, T, D)


def text_rows(inputs, rows, like):
    """The TextRows of `rows` rows of one text (unet_inputs.Inputs), on the device and in the dtype of `like`."""
    # a text of several rows goes round the pictures, as in the host
    context, y = (
        None if t is None else comfy.utils.repeat_to_batch_size(t, rows).to(like) for t in (inputs.context, inputs.y)
    )
    return TextRows(context, y, inputs.layers.to(like) if inputs.layers is not None else None)


@dataclass(frozen=True, eq=False)
class TextBatch:
    """TextRows that fit into one batch."""

    context: torch.Tensor  # (b, T, D)
    y: torch.Tensor | None  # (b, A)
    reader: LayeredContexts | None  # what gives layer-wise texts to their rows

    def read_by(self, options):
        """The options of a call of the UNet in which layer-wise texts reach their rows."""
        return options if self.reader is None else with_patches(options, {"attn2_patch": self.reader})


def one_text(inputs, unet, like):
    """The TextBatch of a single row of one text for a UNet, on the device and in the dtype of `like`."""
    return text_batch([text_rows(inputs, 1, like)], attention_blocks(unet))


def tokens_together(counts):
    """The number of tokens to which texts of these lengths are repeated for one batch; None if that is too much."""
    common = math.lcm(*counts)
    return common if common <= REPEATS * min(counts) else None


def text_batch(parts, blocks):
    """The TextBatch of some TextRows in their order; blocks: the UNet's attention blocks, in order of execution.

    A text that is repeated gives the same attention: each of its tokens is there as often as every other. Lengths that
    `tokens_together` does not allow work too, at a higher cost: one concept's prompts may have no shorter way. Raises
    ValueError for layer-wise texts of another number of layers.
    """
    tokens = math.lcm(*(part.context.shape[1] for part in parts))
    layered, start = [], 0
    for part in parts:
        rows = slice(start, start + len(part.context))
        if part.layers is not None:
            layered.append((rows, part.layers))
        start = rows.stop
    context = torch.cat([part.context.repeat(1, tokens // part.context.shape[1], 1) for part in parts])
    y = torch.cat([part.y for part in parts]) if parts[0].y is not None else None
    return TextBatch(context, y, LayeredContexts(layered, blocks, len(context)) if layered else None)
