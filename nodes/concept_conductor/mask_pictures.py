"""Pictures of the masks of a Concept Conductor, at the start and at the end of its last run."""

import colorsys

import torch
from PIL import Image, ImageDraw

from ...kernels.masks import nearest_resize
from ..host.attach import technique_of
from ..host.latents import checked_images, latents_of, pixels_of
from ..host.messages import input_error
from ..host.panels import as_images, as_picture, panel, write
from ..host.run_records import latest_record, record_of

_PANEL, _CAPTION, _GAP, _FONT = 384, 26, 8, 14
# How much of a concept's colour lies over the picture.
TINT = 0.5


def mask_pictures(model, samples, images=None):
    """IMAGE (B, H, W, 3): per picture of `samples` a row of two panels, the masks before and after refinement.

    Raises ValueError for a MODEL without a Concept Conductor, or one that has not been sampled yet.
    """
    technique = technique_of(model, "concept_conductor")
    if technique is None:
        raise input_error("this MODEL has no Concept Conductor; connect the MODEL that Concept Conductor gives")
    latents = latents_of(samples)
    # nodes behind the sampler may have changed the latents: then the last run is meant
    record = record_of(technique, latents) or latest_record(technique)
    if record is None:
        raise input_error(
            "this MODEL has not been sampled yet; connect the LATENT of the sampler that uses it to samples"
        )
    sheets = []
    for number in range(len(latents)):
        picture = _under(images, number, latents)
        end = record.end[:, min(number, record.end.shape[1] - 1)]
        sheets.append(_sheet(picture, record.start, end, technique.concepts))
    return as_images(sheets)


def _under(images, number, latents):
    """(H, W, 3) in 0..1: the result, or an even grey of its shape."""
    if images is None:
        return torch.full((*pixels_of(latents.shape[-2:]), 3), 0.35)
    images = checked_images(images, "images")
    return images[number % len(images)].cpu()


def _sheet(picture, start, end, concepts):
    height, width = picture.shape[:2]
    scale = _PANEL / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    sheet = panel((2 * size[0] + _GAP, size[1] + 2 * _CAPTION))
    draw = ImageDraw.Draw(sheet)
    for column, (title, masks) in enumerate((("masks at the start", start), ("masks at the end", end))):
        left = column * (size[0] + _GAP)
        tinted = picture.clone()
        for number, mask in enumerate(masks):
            inside = nearest_resize(mask, (height, width))[..., None]
            tinted = torch.where(inside, (1 - TINT) * tinted + TINT * torch.tensor(_colour(number)), tinted)
        sheet.paste(as_picture(tinted).resize(size, Image.Resampling.BILINEAR), (left, _CAPTION))
        write(draw, (left + 4, 4), title, _FONT)
    _legend(draw, size[1] + _CAPTION, [concept.word or label for label, concept in concepts.items()])
    return sheet


def _legend(draw, top, names):
    left = 4
    for number, name in enumerate(names):
        colour = tuple(round(255 * part) for part in _colour(number))
        draw.rectangle((left, top + 7, left + 10, top + 17), fill=colour)
        left += 27 + write(draw, (left + 15, top + 4), name, _FONT)


def _colour(number):
    # neighbours in the chain lie far apart on the colour circle
    return colorsys.hsv_to_rgb((0.02 + 0.381966 * number) % 1, 0.85, 1.0)
