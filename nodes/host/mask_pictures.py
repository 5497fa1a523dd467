"""Pictures of the masks of a Concept Conductor, at the start and at the end of its last run."""

import colorsys

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ...kernels.masks import nearest_resize
from .attach import technique_of
from .say import refusal

PANEL, CAPTION, GAP = 384, 26, 8
INK, PAPER = (235, 235, 235), (24, 24, 28)
# How much of a concept's colour lies over the picture.
TINT = 0.5


def mask_pictures(model, samples, images=None):
    """IMAGE (B, H, W, 3): per picture of `samples` a row of two panels, the masks before and after refinement.

    Raises ValueError for a MODEL without a Concept Conductor, or one that has not been sampled yet.
    """
    technique = technique_of(model, "concept_conductor")
    if technique is None:
        raise refusal("this model has no Concept Conductor; connect the MODEL that comes out of it")
    record = technique.record
    if record.start is None:
        raise refusal("this model has not been sampled yet; connect the LATENT of the sampler that used it as samples")
    latents = samples["samples"]
    sheets = []
    for number in range(len(latents)):
        picture = _under(images, number, latents)
        end = record.end[:, min(number, record.end.shape[1] - 1)]
        sheets.append(_sheet(picture, record.start, end, technique.concepts))
    return torch.from_numpy(np.stack(sheets)).float().div(255)


def _under(images, number, latents):
    """(H, W, 3) in 0..1: the result, or an even grey of its shape."""
    if images is None:
        return torch.full((8 * latents.shape[-2], 8 * latents.shape[-1], 3), 0.35)
    return images[number % len(images), ..., :3].float().cpu()


def _sheet(picture, start, end, concepts):
    height, width = picture.shape[:2]
    scale = PANEL / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    sheet = Image.new("RGB", (2 * size[0] + GAP, size[1] + 2 * CAPTION), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for column, (title, masks) in enumerate((("masks at the start", start), ("masks at the end", end))):
        left = column * (size[0] + GAP)
        tinted = picture.clone()
        for number, mask in enumerate(masks):
            inside = nearest_resize(mask, (height, width))[..., None]
            tinted = torch.where(inside, (1 - TINT) * tinted + TINT * torch.tensor(_colour(number)), tinted)
        shown = Image.fromarray((tinted.clamp(0, 1) * 255).round().byte().numpy())
        sheet.paste(shown.resize(size, Image.Resampling.BILINEAR), (left, CAPTION))
        draw.text((left + 4, 4), title, font=font, fill=INK)
    _legend(draw, font, size[1] + CAPTION, [concept.word or label for label, concept in concepts.items()])
    return np.array(sheet)


def _legend(draw, font, top, names):
    left = 4
    for number, name in enumerate(names):
        colour = tuple(round(255 * part) for part in _colour(number))
        draw.rectangle((left, top + 7, left + 10, top + 17), fill=colour)
        draw.text((left + 15, top + 4), name, font=font, fill=INK)
        left += 27 + round(draw.textlength(name, font=font))


def _colour(number):
    # neighbours in the chain lie far apart on the colour circle
    return colorsys.hsv_to_rgb((0.02 + 0.381966 * number) % 1, 0.85, 1.0)
