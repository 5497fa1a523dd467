"""References as rows of the UNet: latents, conditioning, masks at token grids."""

import math
from dataclasses import dataclass, field
from functools import cached_property

import torch

from ...kernels.masks import kept_tokens
from ..host.clip_text import encoded
from ..host.content_keys import digest
from ..host.families import native_side
from ..host.latents import checked_latent
from ..host.unet_inputs import Inputs, unet_inputs
from ..references.reference_views import View, views_of


@dataclass(frozen=True, eq=False)
class ReferenceRow:
    """One reference picture, ready to run through the UNet of one model. Tensors stay on the CPU."""

    view: View
    index: int  # of the picture in the chain, whatever else is switched off
    latent: torch.Tensor  # (1, C, h, w), in the sampler's units
    inputs: Inputs  # what the UNet reads beside it
    bias: float  # added to the logit of its tokens
    # {grid: what `kept` answers}: found once
    _kept: dict = field(default_factory=dict, repr=False)

    @property
    def latent_size(self):
        return tuple(self.latent.shape[-2:])

    def kept(self, grid):
        """Tokens of an (h, w) grid that the mask keeps: (index (m,) int64, bias (m,) float32)."""
        if grid not in self._kept:
            mask = torch.ones(1, 1) if self.view.mask is None else self.view.mask
            index, log_mask = kept_tokens(mask, grid, self.view.frame)
            self._kept[grid] = index, self.bias + log_mask
        return self._kept[grid]

    @cached_property
    def mask_key(self):
        """What decides which tokens are kept."""
        return digest(self.view.mask), self.view.frame


def rows_of(model, clip, vae, references, weight):
    """One ReferenceRow per picture of the chain, those of strength 0 left out.

    weight: the logit that one reference of strength 1 gets; `ln strength` comes on top. Raises ValueError for pictures,
    masks and latents that cannot be used, and where no CLIP came.
    """
    base = model.model
    rows, texts = [], {}
    for index, view in enumerate(views_of(references, native_area(model))):
        latent = checked_latent(base, vae.encode(view.pixels), view.label)
        reference = view.reference
        if reference.strength == 0:
            continue
        prompt = reference.prompt or reference.word
        if prompt not in texts:
            texts[prompt] = encoded(clip, prompt)
        model_latent = base.process_latent_in(latent)
        inputs = unet_inputs(base, *texts[prompt], model_latent, picture=latent)
        rows.append(ReferenceRow(view, index, model_latent, inputs, weight + math.log(reference.strength)))
    return rows


def native_area(model):
    """Pixels of the pictures that a MODEL was trained on."""
    return native_side(model) ** 2


def count_of_pictures(references):
    """How many pictures a chain holds; an image batch counts each of its own."""
    return sum(r.image.shape[0] if r.image.ndim == 4 else 1 for r in references)
