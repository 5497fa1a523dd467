"""Layer-wise prompts (P+, arXiv 2303.09522): each cross-attention of the UNet reads a context of its own.

They travel in the conditioning's dictionary, so any node that keeps the dictionary keeps them. Layers are numbered in
the order in which they run.
"""

import torch

from .calls import block_of
from .messages import input_error, log_warning

# (L, T, D): a prompt's context at each cross-attention
LAYERS = "personalization_layers"
# (1, T, D): the plain context that went into the conditioning beside them, to tell what nodes behind did to it
PLAIN = "personalization_layers_plain"
# Two contexts are multiples of each other if they differ by no more than this share.
SAME = 1e-4


def contexts_of(tensor, values):
    """The contexts (L, T, D) of one conditioning (tensor (B, T, D), its dictionary); None for an ordinary one.

    What nodes did to the plain tensor is done to each layer: more tokens behind (Concat) stand behind each, a factor
    (Multiply, Zero Out) multiplies each, any other change (Average) is added to each.
    """
    layers, plain = values.get(LAYERS), values.get(PLAIN)
    if layers is None:
        return None
    if tensor is None:
        return layers
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


class LayeredContexts:
    """An attn2_patch for one call of the UNet: puts a layer's contexts in the place of some rows' plain ones."""

    def __init__(self, rows, blocks, batch):
        """rows: [(slice of the batch, contexts (L, T, D))]; blocks: the UNet's, in order of execution; batch: its rows.

        Rows that another technique puts behind the batch keep their context. Raises ValueError for contexts of another
        number of layers.
        """
        self.rows = rows
        self.batch = batch
        self.number = {block: index for index, block in enumerate(blocks)}
        for _, contexts in rows:
            if len(contexts) not in (1, len(blocks)):
                raise input_error(
                    f"a prompt has embeddings for {len(contexts)} cross-attentions, this model has {len(blocks)}: "
                    "encode it with the CLIP of an ED-LoRA made for this model"
                )

    def __call__(self, n, context, value, options):
        if context.shape[0] < self.batch:
            log_warning("another patch removed rows; layer-wise prompts are skipped there")
            return n, context, value
        layer = self.number[block_of(options)]
        swapped = context.clone()
        for rows, contexts in self.rows:
            own = contexts[layer % len(contexts)]
            # the host repeats a shorter prompt beside a longer one
            swapped[rows] = own.repeat(context.shape[1] // own.shape[0], 1).to(swapped)
        return n, swapped, swapped if value is context else value
