"""What Concept Conductor puts into the UNet for one call: blending of features, attention maps, rows that end early."""

from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import get_ident

import comfy.model_management as mm
import torch

from ...kernels.attention_map import head_mean_map
from ...kernels.feature_fusion import fuse
from ..host.attention import plain_attention
from ..host.blocks import residual_layers
from ..host.calls import block_of, grid_of, heads_of, module_of
from ..host.partial_pass import PassEnded


@dataclass(eq=False)
class FeatureStore:
    """Features of paths that have run ahead of the image's rows, at the tokens that their masks cover."""

    # {(attention, block, path): (size of the grid, tokens (m,), features (rows, m, c))}
    features: dict = field(default_factory=dict)


class Fusion:
    """Blends the concepts' features into the first `rows` rows at every attention of the decoder.

    Features are what an attention gives, n (b, h w, c): the image's rows first, then a group of as many for each path
    that rides along. riding: {path: number of its group, from 1}; features of other paths are taken from `stored`.
    """

    def __init__(self, paths, layers, masks, rows, run, riding, stored):
        self.layers, self.masks, self.rows, self.run = layers, masks, rows, run
        self.riding, self.stored = riding, stored
        # of this call: each grid has several layers
        self._covered = {}
        self.path_of = {concept: path for path in paths for concept in path.concepts}

    def patch(self, attention):
        """The host's output patch of "attn1" or "attn2"."""

        def blend(n, options):
            block = block_of(options)
            if block not in self.layers.fused or not self._fits(n, options, 1 + len(self.riding)):
                return n
            masks = row_masks(self.masks, n, options, self.rows)
            base = n[: self.rows]
            for concept, mask in enumerate(masks):
                path = self.path_of[concept]
                if path in self.riding:
                    start = self.riding[path] * self.rows
                    fuse(base, [n[start : start + self.rows]], [mask])
                elif (attention, block, path) in self.stored.features:
                    size, tokens, features = self.stored.features[attention, block, path]
                    if size != n.shape[1]:
                        self._leave_out()
                        continue
                    part = base[:, tokens]
                    base[:, tokens] = fuse(part, [features.to(n)], [mask[:, tokens]])
            return n

        return blend

    def store(self, attention, paths):
        """The host's output patch that keeps the features of `paths`, whose rows are the whole batch."""

        def keep(n, options):
            block = block_of(options)
            if block in self.layers.fused and self._fits(n, options, len(paths)):
                for group, path in enumerate(paths):
                    tokens = self._tokens(path, grid_of(options), n.device)
                    mine = n[group * self.rows : (group + 1) * self.rows]
                    # index_select copies: the rest of the layer's output can be freed
                    self.stored.features[attention, block, path] = n.shape[1], tokens, mine.index_select(1, tokens)
            if block == self.layers.last and attention == "attn2":
                raise PassEnded
            return n

        return keep

    def _tokens(self, path, grid, device):
        """The numbers of the tokens (m,) of a grid that the masks of a path's concepts cover."""
        if (path, grid) not in self._covered:
            masks = self.masks.at(grid, torch.device("cpu"))
            covered = masks[list(path.concepts)].any(1).any(0).nonzero()[:, 0]
            self._covered[path, grid] = covered.to(device, non_blocking=mm.device_supports_non_blocking(device))
        return self._covered[path, grid]

    def _fits(self, n, options, groups):
        height, width = grid_of(options)
        fits = n.shape[0] == groups * self.rows and n.shape[1] == height * width
        if not fits:
            self._leave_out()
        return fits

    def _leave_out(self):
        self.run.tell(
            "Concept Conductor: another node cuts, merges or resizes the picture inside some layers, as Deep Shrink "
            "does, so the concepts are left out there; bypass that node"
        )


def row_masks(masks, n, options, rows):
    """(N, rows, tokens) bool: one mask per concept and row of the image's part of a batch."""
    found = masks.at(grid_of(options), n.device)
    return found.repeat(1, rows // found.shape[1], 1)


class MapCatcher:
    """Notes the attention map of some rows at the map's block; what stands there goes on as it would."""

    def __init__(self, spans, maps):
        """spans: {owner: slice of rows}; maps: {owner: (images, n, n)} is filled."""
        self.spans, self.maps = spans, maps
        self.grid = None

    def replacing(self, inner):
        """The host's attn1 replacement around what stands at the block."""

        def attend(q, k, v, options):
            height, width = grid_of(options)
            if q.shape[1] == k.shape[1] == height * width:
                self.grid = height, width
                for owner, rows in self.spans.items():
                    self.maps[owner] = head_mean_map(q[rows], k[rows], heads_of(options))
            return inner(q, k, v, options) if inner else plain_attention(q, k, v, options)

        return attend


@contextmanager
def rows_ending_at(unet, last, rows):
    """Inside, only the first `rows` rows go on behind the output block of `last`: yields the host's patch for that.

    SDXL's last level has no attention: the concepts' rows would be computed there for nobody.
    """

    def cut(h, skip, options):
        if module_of(options)[1] <= last[1]:
            return h, skip
        return h[:rows], skip[:rows] if skip is not None else None

    thread = get_ident()

    def cut_time(layer, args):
        if get_ident() != thread:
            # somebody else samples the same checkpoint meanwhile
            return None
        x, emb, *more = args
        return (x, emb[: x.shape[0]], *more)

    behind = unet.output_blocks[last[1] + 1 :]
    handles = []
    try:
        for layer in residual_layers(behind):
            handles.append(layer.register_forward_pre_hook(cut_time))
        yield cut
    finally:
        for handle in handles:
            handle.remove()
