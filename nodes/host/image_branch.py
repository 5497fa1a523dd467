"""One cross-attention that also reads pictures: what MIP-Adapter puts at a block for one call."""

import logging

import torch

from ...kernels.image_prompt_attention import (
    image_probabilities,
    image_values,
    merge_weights,
    object_maps,
    shared_weight,
    text_gate,
)
from .frames import frame_of
from .rows import COND, UNCOND

log = logging.getLogger(__name__)


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
        text = plain()
        return text + sum(self._image(member, q, text, options, chunk) for member in self.members)

    def _image(self, member, q, text, options, chunk):
        layer, heads = self.state.layer(member, self.block, q), options["n_heads"]
        regions, place = self._regions(member, q, options, chunk)
        factor = torch.full((1, 1, 1), member.scale, device=q.device)
        if layer.gate is not None:
            factor = factor * text_gate(text, layer.gate)[:, None]
        strengths = torch.tensor(member.strengths, device=q.device)
        if chunk.role == UNCOND:
            # all objects share the tokens of an empty picture there, and their weights sum to one: no map is needed
            factor = factor * shared_weight(strengths, regions)
            return image_values(image_probabilities(q, layer.empty_k, heads=heads), layer.empty_v, factor)

        if member.joint:
            probabilities = image_probabilities(
                q, layer.k, heads=heads, joint=True, log_regions=regions.log() if regions is not None else None
            )
            anywhere = regions.amax(0) if regions is not None else torch.ones((), device=q.device)
            factor = factor * anywhere
            shares = probabilities.detach().sum(-1).mean(1).mT * anywhere
        else:
            probabilities = image_probabilities(q, layer.k, heads=heads)
            shares = self._merge_weights(member, q, heads, chunk, regions)
            factor = factor * shares
        if place is not None:
            self.state.note(member, shares, *place)
        return image_values(probabilities, layer.v, factor * strengths[:, None])

    def _merge_weights(self, member, q, heads, chunk, regions):
        """(b, r, n), or (1, 1, n) of a single object, which needs no map."""
        if len(member.counts) == 1:
            return torch.ones(1, 1, q.shape[1], device=q.device) if regions is None else regions[None]
        maps = object_maps(q, self.state.phrase_keys(member, self.block, chunk, q), member.counts, heads=heads)
        return merge_weights(maps, power=member.power, regions=regions)

    def _regions(self, member, q, options, chunk):
        """(regions (r, n) at the tokens or None, (grid, frame) of the tokens or None if they cannot be placed)."""
        frame = frame_of(q, options, chunk, self.run)
        if frame is None:
            if member.has_regions and self.run.once("regions of image prompts"):
                log.warning(
                    "MIP-Adapter: regions of references are off where another patch cuts the picture into tiles, "
                    "merges its tokens or samples an unknown part of it"
                )
            return None, None
        grid = tuple(options["activations_shape"][-2:])
        return self.state.regions(member, grid, frame, q.device), (grid, frame)
