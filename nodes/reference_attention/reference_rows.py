"""References as rows of the UNet: latents, conditioning, masks at token grids."""

import math
from dataclasses import dataclass, field
from functools import cached_property

import torch

from ...kernels.masks import area_resize, kept_tokens
from ..host.blocks import grid_at
from ..host.clip_text import encoded
from ..host.content_keys import digest
from ..host.families import native_side
from ..host.latents import checked_latent
from ..host.messages import warn_user
from ..host.unet_inputs import Inputs, picture_inputs, unet_inputs
from ..references.reference_views import View, views_of


@dataclass(frozen=True, eq=False)
class ReferenceRow:
    """One reference picture, ready to run through the UNet of one model. Tensors stay on the CPU."""

    view: View
    index: int  # of the picture in the chain, whatever else is switched off
    latent: torch.Tensor  # (1, C, h, w), in the sampler's units
    inputs: Inputs  # what the UNet reads beside it
    text: tuple | None  # (context, values) of its own prompt, if it has one
    bias: float  # added to the logit of its tokens
    bilinear: bool = False  # how its mask comes to a grid; else by nearest, or by area where it is grey
    # {grid: what `kept`, `uniform_bias` and `share` answer}: found once
    _kept: dict = field(default_factory=dict, repr=False)
    _uniform: dict = field(default_factory=dict, repr=False)
    _shares: dict = field(default_factory=dict, repr=False)

    @property
    def latent_size(self):
        return tuple(self.latent.shape[-2:])

    def kept(self, grid):
        """Tokens of an (h, w) grid that the mask keeps: (index (m,) int64, bias (m,) float32)."""
        if grid not in self._kept:
            mask = torch.ones(1, 1) if self.view.mask is None else self.view.mask
            index, log_mask = kept_tokens(mask, grid, self.view.frame, self.bilinear)
            self._kept[grid] = index, self.bias + log_mask
        return self._kept[grid]

    def uniform_bias(self, grid):
        """The bias of its kept tokens where all have the same, a number; None behind a grey mask."""
        if grid not in self._uniform:
            bias = self.kept(grid)[1]
            one = len(bias) and bool((bias == bias[0]).all())
            self._uniform[grid] = float(bias[0]) if one else None
        return self._uniform[grid]

    def share(self, grid):
        """How much of each cell of an (h, w) grid the mask covers, (h, w) in 0..1; of nothing, all alike."""
        if grid not in self._shares:
            share = torch.ones(grid)
            if self.view.mask is not None:
                share = area_resize(self.view.mask.float()[None], grid, self.view.frame)[0]
            self._shares[grid] = share if share.any() else torch.ones(grid)
        return self._shares[grid]

    @property
    def strength(self):
        return self.view.reference.strength

    @cached_property
    def mask_key(self):
        """What decides which tokens are kept."""
        return digest(self.view.mask), self.view.frame, self.bilinear


def rows_of(model, clip, vae, references, weight, own_text=True, bilinear=False):
    """One ReferenceRow per picture of the chain, those of strength 0 left out.

    weight: the logit that one reference of strength 1 gets; `ln strength` comes on top; own_text: whether they have
    prompts of their own, which the CLIP reads; bilinear: as of ReferenceRow. Raises ValueError for pictures, masks and
    latents that cannot be used, and where a CLIP is missing.
    """
    base = model.model
    rows, texts = [], {}
    for index, view in enumerate(views_of(references, native_area(model))):
        latent = checked_latent(base, vae.encode(view.pixels), view.label)
        reference = view.reference
        if reference.strength == 0:
            continue
        prompt, text = reference.prompt or reference.word, None
        model_latent = base.process_latent_in(latent)
        if own_text:
            if prompt not in texts:
                texts[prompt] = encoded(clip, prompt)
            text = texts[prompt]
            inputs = unet_inputs(base, *text, model_latent, picture=latent)
        else:
            inputs = picture_inputs(base, model_latent, picture=latent)
        bias = weight + math.log(reference.strength)
        rows.append(ReferenceRow(view, index, model_latent, inputs, text, bias, bilinear))
    return rows


def native_area(model):
    """Pixels of the pictures that a MODEL was trained on."""
    return native_side(model) ** 2


def count_of_pictures(references):
    """How many pictures a chain holds; an image batch counts each of its own."""
    return sum(r.image.shape[0] if r.image.ndim == 4 else 1 for r in references)


def with_tokens(rows, blocks):
    """The rows whose masks leave a token at some of the blocks ({host key: level}); what falls away is said."""
    left = []
    for row in rows:
        grids = {grid_at(level, row.latent_size) for level in blocks.values()}
        empty = sorted(grid for grid in grids if not len(row.kept(grid)[0]))
        if empty:
            sizes = ", ".join(f"{h}x{w}" for h, w in empty)
            warn_user(
                f"{row.view.label}: its mask keeps no token on the {sizes} grid, so it has no effect there; "
                "draw it larger"
            )
        if len(empty) < len(grids):
            left.append(row)
    return left
