"""Rows of the UNet by the text that they read: rows of one text, and several of them in one batch."""

import math
from dataclasses import dataclass

import comfy.utils
import torch

from .blocks import attention_blocks
from .calls import with_patches
from .content_keys import digest
from .contexts import Contexts
from .layered_prompts import ContextPatch
from .paired_rows import PairedValues, contexts_taken_apart, taken_apart
from .rows import entry_of

# The host repeats the shorter of two texts up to this often to batch them.
REPEATS = 4


@dataclass(frozen=True, eq=False)
class TextRows:
    """Neighbouring rows of one batch that read one text, or several texts by turns."""

    context: torch.Tensor  # (rows, T, D)
    y: torch.Tensor | None  # (rows, A)
    contexts: Contexts | None = None  # where layers or timesteps read other ones
    values: torch.Tensor | None = None  # (rows, T, D): what stands for the values, None: the context
    texts: int = 1  # how many take turns; the Contexts are those of the first

    def spread(self, times):
        """The same with each row so many times."""
        if times == 1:
            return self
        context, y, values = (
            None if t is None else t.repeat_interleave(times, 0) for t in (self.context, self.y, self.values)
        )
        return TextRows(context, y, self.contexts, values)


def rows_of_call(context, y, contexts=None):
    """The TextRows of what some rows of a call of the UNet read: context (rows, T, D), y (rows, A) or None."""
    context, values = taken_apart(context)
    return TextRows(context, y, contexts_taken_apart(contexts), values)


def text_rows(inputs, rows, like):
    """The TextRows of `rows` rows of one text (unet_inputs.Inputs), on the device and in the dtype of `like`."""
    # the rows of a text of several take turns over the pictures, as in the host
    context, y, values = (
        None if t is None else comfy.utils.repeat_to_batch_size(t, rows).to(like)
        for t in (inputs.context, inputs.y, inputs.values)
    )
    contexts = inputs.contexts.to(like) if inputs.contexts is not None else None
    return TextRows(context, y, contexts, values, len(inputs.context))


@dataclass(frozen=True, eq=False)
class TextBatch:
    """TextRows that fit into one batch."""

    context: torch.Tensor  # (b, T, D)
    y: torch.Tensor | None  # (b, A)
    blocks: tuple  # of the UNet, in order of execution
    layered: tuple  # (rows, their Contexts) of those that have some
    paired: tuple  # (rows, their values) of those whose values are not their keys, and no more

    def read_by(self, options, timestep):
        """The options of a call of the UNet at a timestep, a number, in which such texts reach their rows.

        Raises ValueError for layer-wise texts of another number of layers.
        """
        if self.layered:
            reader = ContextPatch(self.layered, self.blocks, len(self.context), timestep)
            options = with_patches(options, {"attn2_patch": reader})
        if self.paired:
            options = with_patches(options, {"attn2_patch": PairedValues(self.paired)})
        return options


def one_text(inputs, unet, like, rows=1):
    """The TextBatch of `rows` rows of one text for a UNet, on the device and in the dtype of `like`."""
    return text_batch([text_rows(inputs, rows, like)], attention_blocks(unet))


def rows_by_text(chunk, context, y, conds):
    """The rows of a chunk by the text that they read: one tuple of numbers of the batch for each.

    context (b, T, D) and y (b, A) or None: of the whole call; conds: the guider's named conditionings.
    """
    rows = tuple(range(chunk.start, chunk.stop))
    if len(rows) == 1 or reads_one_text(chunk, conds):
        return [rows]
    found = {}
    for row in rows:
        found.setdefault(digest(context[row], None if y is None else y[row]), []).append(row)
    return [tuple(group) for group in found.values()]


def reads_one_text(chunk, conds):
    """Whether all rows of a chunk are known to read one text; conds: the guider's named conditionings."""
    entry = entry_of(chunk, conds)
    if entry is None:
        return False
    # asked in each call: their contents are not looked at
    texts = entry["model_conds"]
    return all(len(texts[name].cond) == 1 for name in ("c_crossattn", "y") if name in texts)


def tokens_together(counts):
    """The number of tokens to which texts of these lengths are repeated for one batch; None if that is too much."""
    common = math.lcm(*counts)
    return common if common <= REPEATS * min(counts) else None


def text_batch(parts, blocks):
    """The TextBatch of some TextRows in their order; blocks: the UNet's attention blocks, in order of execution.

    A text that is repeated gives the same attention: each of its tokens is there as often as every other. Lengths that
    `tokens_together` does not allow work too, at a higher cost: one concept's prompts may have no shorter way.
    """
    tokens = math.lcm(*(part.context.shape[1] for part in parts))
    layered, paired, start = [], [], 0
    for part in parts:
        rows = slice(start, start + len(part.context))
        if part.contexts is not None:
            layered.append((slice(rows.start, rows.stop, part.texts), part.contexts))
        elif part.values is not None:
            paired.append((rows, part.values))
        start = rows.stop
    context = torch.cat([part.context.repeat(1, tokens // part.context.shape[1], 1) for part in parts])
    y = torch.cat([part.y for part in parts]) if parts[0].y is not None else None
    return TextBatch(context, y, tuple(blocks), tuple(layered), tuple(paired))
