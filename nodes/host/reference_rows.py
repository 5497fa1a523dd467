"""References as rows of the UNet: latents, conditioning, masks at token grids."""

import math
from dataclasses import dataclass, field
from functools import cached_property

import torch

from ...kernels.masks import kept_tokens
from .bank import digest
from .families import native_side
from .pictures import views_of
from .say import refusal
from .text import encoded
from .unet_inputs import unet_inputs


@dataclass(frozen=True, eq=False)
class ReferenceRow:
    """One reference picture, ready to run through the UNet of one model. Tensors stay on the CPU."""

    index: int  # of the picture in the chain, whatever else is switched off
    label: str
    latent: torch.Tensor  # (1, C, h, w), in the sampler's units
    concat: torch.Tensor | None  # (1, C', h, w): further input channels of inpainting and editing UNets
    context: torch.Tensor  # (1, m, D)
    y: torch.Tensor | None  # (1, A)
    bias: float  # added to the logit of its tokens
    mask: torch.Tensor | None
    frame: tuple
    region: torch.Tensor | None
    _kept: dict = field(default_factory=dict, repr=False)

    @property
    def latent_size(self):
        return tuple(self.latent.shape[-2:])

    def kept(self, grid):
        """Tokens of an (h, w) grid that the mask keeps: (index (m,) int64, bias (m,) float32)."""
        if grid not in self._kept:
            mask = torch.ones(1, 1) if self.mask is None else self.mask
            index, log_mask = kept_tokens(mask, grid, self.frame)
            self._kept[grid] = index, self.bias + log_mask
        return self._kept[grid]

    @cached_property
    def mask_key(self):
        """What decides which tokens are kept."""
        return digest(self.mask), self.frame


def rows_of(model, clip, vae, references, weight):
    """One ReferenceRow per picture of the chain, those of strength 0 left out.

    weight: the logit that one reference of strength 1 gets; `ln strength` comes on top.
    """
    base = model.model
    prompts = [r.prompt or r.word for r in references for _ in range(count_of_pictures((r,)))]
    rows, texts = [], {}
    for index, (view, prompt) in enumerate(zip(views_of(references, native_area(model)), prompts, strict=True)):
        latent = _latent(base, vae.encode(view.pixels), view.label)
        if view.strength == 0:
            continue
        if prompt not in texts:
            texts[prompt] = encoded(clip, prompt)
        rows.append(_row(base, index, view, latent, *texts[prompt], weight + math.log(view.strength)))
    return rows


def native_area(model):
    """Pixels of the pictures that a MODEL was trained on."""
    return native_side(model) ** 2


def count_of_pictures(references):
    """How many pictures a chain holds; an image batch counts each of its own."""
    return sum(r.image.shape[0] if r.image.ndim == 4 else 1 for r in references)


def _latent(base, latent, label):
    channels = base.latent_format.latent_channels
    if latent.ndim != 4 or latent.shape[1] != channels:
        raise refusal(
            f"the VAE makes latents of shape {tuple(latent.shape)}, the model needs {channels} channels and no frames; "
            "connect the VAE that belongs to the model"
        )
    if not torch.isfinite(latent).all():
        raise refusal(f"the VAE gave values that are not numbers for {label}; start the host with --fp32-vae")
    return latent.float().cpu()


def _row(base, index, view, latent, cross_attn, values, bias):
    model_latent = base.process_latent_in(latent)
    inputs = unet_inputs(base, cross_attn, values, model_latent, picture=latent)
    return ReferenceRow(
        index,
        view.label,
        model_latent,
        inputs.concat,
        inputs.context,
        inputs.y,
        bias,
        view.mask,
        view.frame,
        view.region,
    )
