"""Prompts that say another thing at each layer (P+, arXiv 2303.09522), at each timestep, or to keys and to values.

They travel in the conditioning's dictionary, so any node that keeps the dictionary keeps them.
"""

import torch

from .calls import block_of
from .contexts import Contexts, FixedContexts, each_of
from .messages import input_error, log_warning

# the Contexts of a prompt; a bare tensor (L, T, D) counts as FixedContexts
LAYERS = "personalization_layers"
# (1, T, D): the plain context that went into the conditioning beside them, to tell what nodes behind did to it
PLAIN = "personalization_layers_plain"
# Whether a prompt holds words that a CLIP was taught.
TAUGHT = "personalization_words"
# Two contexts are multiples of each other if they differ by no more than this share.
SAME = 1e-4


def contexts_of(tensor, values):
    """The Contexts of one conditioning (tensor (B, T, D), its dictionary); None for an ordinary one.

    What nodes did to the plain tensor is done to keys and values of each layer: more tokens behind (Concat) stand
    behind each, a factor (Multiply, Zero Out) multiplies each, any other change (Average) is added to each.
    """
    contexts, plain = values.get(LAYERS), values.get(PLAIN)
    if isinstance(contexts, torch.Tensor):
        contexts = FixedContexts(contexts)
    if not isinstance(contexts, Contexts) or tensor is None:
        return contexts
    return contexts.mapped(each_of(lambda layers: _as_plain(tensor, plain, layers)))


def models_of(*texts):
    """The ModelPatchers that must be loaded with the UNet for the Contexts of some texts (tensor, dictionary)."""
    found = [contexts_of(*text) for text in texts if text is not None]
    return list(dict.fromkeys(model for contexts in found if contexts is not None for model in contexts.models))


def tell_of_unread(run):
    """Says in a run whose prompts have Contexts that its MODEL reads none."""
    if any(LAYERS in entry for several in run.conds().values() for entry in several):
        run.tell(
            "a prompt of this run has words that differ by layer or step, but only their plain text is read: sample "
            "the MODEL that comes from the node that loaded the words"
        )


def rows_of_first_text(tensor, context):
    """Which rows of a context (b, T', D) read the first text of a conditioning's tensor (B, T, D), as numbers.

    Nodes that join prompts to a batch keep the dictionary of the first: its layers are those of the first text alone.
    """
    if tensor is None or len(tensor) == 1:
        return list(range(len(context)))
    first = tensor[0].to(context)
    first = first.repeat(context.shape[1] // len(first), 1)
    return [number for number, row in enumerate(context) if torch.equal(row, first)]


def _as_plain(tensor, plain, layers):
    length = min(layers.shape[1], tensor.shape[1])
    head, tail = tensor[:1, :length].to(layers), tensor[:1, length:].to(layers)
    layers = layers[:, :length]
    if plain is not None:
        layers = _changed(layers, plain[:, :length].to(layers), head)
    return torch.cat([layers, tail.expand(len(layers), -1, -1)], 1)


def _changed(layers, plain, head):
    if head.shape != plain.shape or torch.equal(head, plain):
        return layers
    factor = (head * plain).sum() / (plain * plain).sum()
    if (head - factor * plain).norm() <= SAME * plain.norm():
        return factor * layers
    return layers + (head - plain)


class ContextPatch:
    """An attn2_patch for one call of the UNet: puts a layer's contexts in the place of some rows' plain ones."""

    def __init__(self, rows, blocks, batch, timestep, tell=log_warning):
        """rows: [(slice or numbers of rows of the batch, their Contexts)]; blocks: the UNet's, in order of execution;
        batch: its rows; timestep: of the call; tell: where a sentence for the user goes.

        Rows that another technique puts behind the batch keep their context. Raises ValueError for contexts of another
        number of layers.
        """
        self.rows = [(mine, *contexts.at(timestep)) for mine, contexts in rows]
        self.batch = batch
        self.tell = tell
        self.number = {block: index for index, block in enumerate(blocks)}
        for _, keys, _ in self.rows:
            if len(keys) not in (1, len(blocks)):
                raise input_error(
                    f"a prompt has embeddings for {len(keys)} cross-attentions, this model has {len(blocks)}: "
                    "encode it with the CLIP that belongs to this model"
                )

    def __call__(self, n, context, value, options):
        if context.shape[0] < self.batch:
            self.tell(
                "another node removed rows at some layers, so words that differ by layer or step are read there as "
                "plain ones; bypass that node"
            )
            return n, context, value
        layer = self.number[block_of(options)]
        swapped = context.clone()
        for rows, keys, _ in self.rows:
            _put(swapped, rows, keys, layer)
        apart = swapped if value is context else value
        if any(values is not None for _, _, values in self.rows):
            apart = apart.clone()
            for rows, _, values in self.rows:
                if values is not None:
                    _put(apart, rows, values, layer)
        return n, swapped, apart


def _put(into, rows, contexts, layer):
    own = contexts[layer % len(contexts)]
    # the host repeats a shorter prompt beside a longer one
    into[rows] = own.repeat(into.shape[1] // own.shape[0], 1).to(into)
