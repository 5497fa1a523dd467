"""Concepts as rows of the UNet: which paths there are, and what text each of their rows reads."""

import math
from dataclasses import dataclass
from functools import cached_property

import comfy.utils
import torch

from .bank import digest
from .layer_contexts import contexts_of
from .row_adapters import concept_deltas
from .rows import UNCOND
from .say import refusal
from .unet_inputs import unet_inputs

# The host repeats the shorter of two texts up to this often to batch them.
REPEATS = 4


@dataclass(frozen=True, eq=False)
class Path:
    """A set of weights with its prompts: one or several equal concepts. The base is no Path."""

    deltas: object  # row_adapters.Deltas
    positive: tuple  # (context (1, T, D), the dictionary of its other values)
    negative: tuple | None  # None: the base's own
    concepts: tuple  # numbers of the concepts that it serves, from 0

    @cached_property
    def texts_key(self):
        return tuple(_text_key(text) for text in (self.positive, self.negative))


def paths_of(model, concepts):
    """The Paths of a chain of concepts beyond the base MODEL: equal ones share one."""
    found = {}
    for number, concept in enumerate(concepts):
        deltas = concept_deltas(model, concept.model, concept.strength)
        path = Path(deltas, _entry(concept.positive), concept.negative and _entry(concept.negative), (number,))
        key = deltas, path.texts_key
        if key in found:
            path = Path(path.deltas, path.positive, path.negative, (*found[key].concepts, number))
        found[key] = path
    return tuple(found.values())


def _entry(conditioning):
    tensor, values = conditioning[0]
    return tensor, values


def _text_key(text):
    if text is None:
        return None
    tensor, values = text
    others = sorted((name, value) for name, value in values.items() if isinstance(value, int | float | str))
    return digest(tensor, values.get("pooled_output"), contexts_of(tensor, values)), tuple(others)


class Texts:
    """The prompts of all paths in one run, as the UNet takes them."""

    def __init__(self, base, paths, latent_size):
        latent = torch.zeros(1, base.latent_format.latent_channels, *latent_size)
        self._made = {}
        for path in paths:
            for kind, text in (("positive", path.positive), ("negative", path.negative)):
                if text is not None:
                    self._made[path, kind] = unet_inputs(base, *text, latent, kind)

    def of(self, path, role):
        """The Inputs of a path's rows of a role; None where they read what the base's rows read."""
        return self._made.get((path, "negative" if role == UNCOND else "positive"))


@dataclass(frozen=True, eq=False)
class Block:
    """Neighbouring rows of one batch that read one text."""

    context: torch.Tensor  # (rows, T, D)
    y: torch.Tensor | None  # (rows, A)
    layers: torch.Tensor | None = None  # (L, T, D)


def block_of(inputs, rows, like):
    """The Block of `rows` rows of one text, on the device and in the dtype of `like`."""
    # a text of several rows goes round the pictures, as in the host
    context, y = (
        None if t is None else comfy.utils.repeat_to_batch_size(t, rows).to(like) for t in (inputs.context, inputs.y)
    )
    return Block(context, y, inputs.layers.to(like) if inputs.layers is not None else None)


@dataclass(frozen=True, eq=False)
class Batch:
    """Blocks that fit into one batch."""

    context: torch.Tensor
    y: torch.Tensor | None
    layered: tuple  # ((rows, layers (L, T, D)), ...): rows that read another context at each cross-attention

    def reader(self, order):
        """The host's attn2 patch that gives those rows their context; order: {block key: number of its context}."""

        def read(n, context, value, options):
            number = order[(*options["block"], options["block_index"])]
            context = context.clone()
            for rows, layers in self.layered:
                context[rows] = layers[number]
            return n, context, context

        return read


def tokens_together(counts):
    """The number of tokens to which texts of these lengths are repeated for one batch; None if that is too much."""
    common = math.lcm(*counts)
    return common if common <= REPEATS * min(counts) else None


def batch_of(blocks, layers):
    """The Batch of some Blocks in their order; layers: of the UNet.

    A text that is repeated gives the same attention: each of its tokens is there as often as every other. Lengths that
    `tokens_together` does not allow work too, at a higher cost: one concept's prompts may have no shorter way.
    """
    tokens = math.lcm(*(block.context.shape[1] for block in blocks))
    layered, start = [], 0
    for block in blocks:
        rows = slice(start, start + len(block.context))
        if block.layers is not None:
            if len(block.layers) not in (1, len(layers.levels)):
                raise refusal(
                    f"a concept's prompt has {len(block.layers)} contexts per layer, this model has "
                    f"{len(layers.levels)} cross-attentions; encode it with an ED-LoRA for this model"
                )
            per_layer = block.layers.expand(len(layers.levels), -1, -1)
            layered.append((rows, per_layer.repeat(1, tokens // per_layer.shape[1], 1)))
        start = rows.stop
    context = torch.cat([b.context.repeat(1, tokens // b.context.shape[1], 1) for b in blocks])
    y = torch.cat([block.y for block in blocks]) if blocks[0].y is not None else None
    return Batch(context, y, tuple(layered))
