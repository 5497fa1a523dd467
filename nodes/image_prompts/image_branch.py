"""One cross-attention that also reads pictures: what MIP-Adapter puts at a block for one call."""

import torch

from ...kernels.image_prompt_attention import image_probabilities, image_values, merge_weights, object_maps, text_gate
from ..host.calls import grid_of, heads_of
from ..host.frames import frame_of
from ..host.messages import log_warning
from ..host.rows import COND, UNCOND


class ImageBranch:
    """Cross-attention to the text plus, for each member of the technique, to its pictures."""

    adds = True

    def __init__(self, block, members, state, run):
        self.block = block
        self.members = members
        self.state = state
        self.run = run

    def __call__(self, q, k, v, options, chunk, plain):
        if chunk.role not in (COND, UNCOND):
            return None
        out = text = plain()
        for member in self.members:
            out = out + self._image(member, q, text, options, chunk)
        return out

    def _image(self, member, q, text, options, chunk):
        layer, heads = self.state.layer(member, self.block, q), heads_of(options)
        place = self._place(member, q, options, chunk)
        gate = 1.0 if layer.gate is None else text_gate(text, layer.gate)[:, None]
        if chunk.role == UNCOND:
            # all objects share the tokens of an empty picture there, and their weights sum to one: no map is needed
            probabilities = image_probabilities(q, layer.empty_k, heads=heads)
            return image_values(probabilities, layer.empty_v, gate * self.state.empty_weight(member, place, q.device))

        regions = self.state.regions(member, place, q.device)
        merged = self._joint if member.joint else self._weighted
        probabilities, factor, shares = merged(member, q, layer.k, heads, chunk, regions)
        if place is not None:
            self.state.add_shares(member, shares, place)
        scales = self.state.scales(member, q.device)[:, None]
        return image_values(probabilities, layer.v, gate * factor * scales)

    def _joint(self, member, q, k, heads, chunk, regions):
        """One softmax over the tokens of all pictures: (probabilities, what multiplies them, each object's share)."""
        log_regions = None if regions is None else regions.log()
        probabilities = image_probabilities(q, k, heads=heads, joint=True, log_regions=log_regions)
        anywhere = 1.0 if regions is None else regions.amax(0)
        return probabilities, anywhere, probabilities.sum(-1).mean(1).mT * anywhere

    def _weighted(self, member, q, k, heads, chunk, regions):
        """One softmax for each picture, mixed by the objects' maps; returns as `_joint`."""
        shares = self._merge_weights(member, q, heads, chunk, regions)
        return image_probabilities(q, k, heads=heads), shares, shares

    def _merge_weights(self, member, q, heads, chunk, regions):
        """(b, r, n), or (1, 1, n) of a single object, which needs no map."""
        if len(member.counts) == 1:
            return torch.ones(1, 1, q.shape[1], device=q.device) if regions is None else regions[None]
        maps = object_maps(q, self.state.phrase_keys(member, self.block, chunk, q), member.counts, heads=heads)
        return merge_weights(maps, power=member.power, regions=regions)

    def _place(self, member, q, options, chunk):
        """(grid, frame) of the tokens: their rows and columns, and the part of the result that they show; None if
        nobody can tell.
        """
        frame = frame_of(q, options, chunk, self.run)
        if frame is not None:
            return grid_of(options), frame
        if member.has_regions and self.run.once("regions of image prompts"):
            log_warning(
                "MIP-Adapter: regions of references are ignored where another patch tiles the picture, merges its "
                "tokens or samples an unknown part of it"
            )
        return None
