"""Where in the pictures words are read, kept while a UNet runs for a training."""

import torch

from ...kernels.word_maps import word_map, word_places
from ..host.attention import plain_attention
from ..host.blocks import QUARTER, grid_at, quarter_blocks
from ..host.calls import grid_of, heads_of, with_replacements
from .trained_texts import first_run


class KeptMaps:
    """Watches cross-attentions of one call: {grid (h, w): the map (b, n, w) of each layer}, of the first rows."""

    def __init__(self, blocks, which, texts, words):
        """blocks: {host key: level}; which: "quarter" for those of a quarter of the latent's sides outside of the
        middle, "levels" for all; texts: a TrainedText per picture; words: of each picture, as many for all that
        have any; a map of no word is 0.
        """
        self.blocks = list(blocks) if which == "levels" else quarter_blocks(blocks)
        # of each picture's text, as long as it is
        none = ((),) * max(map(len, words))
        self.own = [
            word_places([[first_run(text.places.get(word, ())) for word in own] or none], text.contexts.shape[1])
            for text, own in zip(texts, words, strict=True)
        ]
        self.places = torch.empty(0)
        self.maps, self._open = {}, True

    def watching(self, options):
        """The options of a call that is watched."""
        return with_replacements(options, {("attn2", block): lambda standing: self for block in self.blocks})

    def close(self):
        """What a checkpoint computes again afterwards is no map of its own."""
        self._open = False
        return self.maps

    def __call__(self, q, k, v, options):
        """The attention that replaces a block's: the host's own."""
        rows, length = len(self.own), k.shape[1]
        if self.places.shape[1:2] != (length,) or self.places.device != q.device:
            # shorter texts were repeated, and a word is read in each copy
            self.places = torch.cat([own.repeat(1, length // own.shape[1], 1) for own in self.own]).to(q.device)
        found = word_map(q[:rows], k[:rows], heads_of(options), self.places)
        if self._open:
            self.maps.setdefault(grid_of(options), []).append(found)
        return plain_attention(q, k, v, options)


def quarter_grid(latent_size):
    """(h, w) of the grid of a quarter of a latent's sides."""
    return grid_at(QUARTER, latent_size)
