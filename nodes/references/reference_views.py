"""Reference pictures as the model will see them: size, crop, and masks that follow."""

from dataclasses import dataclass

import comfy.utils
import torch

from ...kernels.masks import WHOLE
from ..host.latents import LATENT_STEP, batched_mask, bounded_mask, checked_images
from ..host.messages import input_error, warn_user


@dataclass(frozen=True)
class View:
    """One picture of one reference, fitted to a model."""

    reference: object  # what the user says of it: a Reference
    label: str
    pixels: torch.Tensor  # (1, H, W, 3)
    mask: torch.Tensor | None  # (Hm, Wm) in 0..1, in its own frame; None: the whole picture
    frame: tuple  # the part of the mask that the pixels show: top, left, bottom, right in 0..1
    region: torch.Tensor | None  # (Hr, Wr) in 0..1 over the result; None: everywhere

    @property
    def latent_size(self):
        return self.pixels.shape[1] // LATENT_STEP, self.pixels.shape[2] // LATENT_STEP


def views_of(references, area):
    """One View per picture of each reference, in chain order; `area` is the model's native number of pixels.

    Raises ValueError for counts of masks or regions that do not match the pictures, and for pictures under 8 pixels.
    """
    views = []
    for number, reference in enumerate(references, 1):
        label, images, masks = pictures_of(reference, number)
        regions = _spread(_regions(reference, label), len(images), label, "region")
        for image, mask, region in zip(images, masks, regions, strict=True):
            pixels, frame = fitted_picture(image, area, label)
            views.append(View(reference, label, pixels, mask, frame, region))
    return views


def pictures_of(reference, number):
    """(label, pictures (b, H, W, 3), per picture a mask (Hm, Wm) in 0..1 or None) of reference `number` of a chain.

    Raises ValueError, naming the reference, for what is no IMAGE or MASK, and for a count of masks that does not match.
    """
    label = label_of(number, reference)
    images = checked_images(reference.image, label)
    return label, images, _spread(_without_constant(reference.mask, label), len(images), label, "mask")


def label_of(number, reference):
    """What a reference is called in messages."""
    return f'reference {number} ("{reference.word}")' if reference.word else f"reference {number}"


def any_connected(references):
    """Whether a chain has references; said on the node where it has none."""
    if not references:
        warn_user("no references are connected, so this node does nothing")
    return bool(references)


def strengths_of(references):
    """The strength of each reference."""
    return tuple(float(reference.strength) for reference in references)


def regions_of(references):
    """Per reference where in the result it may act, as `region_of`."""
    return tuple(region_of(reference, label_of(number, reference)) for number, reference in enumerate(references, 1))


def region_of(reference, label):
    """Where in the result a whole reference may act, (Hr, Wr) in 0..1; None: everywhere. Of several, where any may."""
    regions = _regions(reference, label)
    if regions is None or any(one is None for one in regions):
        return None
    return torch.stack(regions).amax(0)


def fitted_picture(image, area, label="picture"):
    """The image (H, W, 3) shrunk to at most `area` pixels (never enlarged) and cropped to a multiple of 8.

    Returns (1, h, w, 3) and the frame (top, left, bottom, right in 0..1) that is left of the image. Keeps the aspect.
    Raises ValueError, naming the picture by its label, for one under 8 x 8 pixels.
    """
    height, width = image.shape[:2]
    if min(height, width) < LATENT_STEP:
        raise input_error(f"{label} is {width}x{height} pixels; a picture needs at least 8x8")
    scale = min(1.0, (area / (height * width)) ** 0.5)
    size = [max(LATENT_STEP, round(side * scale)) for side in (height, width)]
    pixels = image[None]
    if size != [height, width]:
        channels_first = comfy.utils.common_upscale(pixels.movedim(-1, 1), size[1], size[0], "area", "disabled")
        pixels = channels_first.movedim(1, -1)
    kept = [side // LATENT_STEP * LATENT_STEP for side in size]
    top, left = ((side - keep) // 2 for side, keep in zip(size, kept, strict=True))
    pixels = pixels[:, top : top + kept[0], left : left + kept[1]]
    frame = (top / size[0], left / size[1], (top + kept[0]) / size[0], (left + kept[1]) / size[1])
    return pixels.contiguous(), frame if size != kept else WHOLE


def _as_masks(mask, label, kind):
    if mask is None:
        return None
    mask = batched_mask(mask)
    if mask.ndim != 3:
        raise input_error(
            f"the {kind} of {label} has the shape {tuple(mask.shape)}; connect a MASK (batch, height, width)"
        )
    return bounded_mask(mask, label, kind)


def _without_constant(mask, label):
    """Per picture its mask, None for one that is the same everywhere: it marks nothing.

    The host gives such masks for pictures without transparency, black ones of 64 x 64 or constant ones of any size.
    """
    mask = _as_masks(mask, label, "mask")
    if mask is None:
        return None
    marks = [bool(one.min() < one.max()) for one in mask]
    if not all(marks):
        warn_user(
            f"{label}: its mask has one value everywhere, like that of a picture without transparency or one painted "
            "black all over, so it marks no subject; the whole picture is used"
        )
    return [one if marked else None for one, marked in zip(mask, marks, strict=True)]


def _regions(reference, label):
    """Per region (Hr, Wr) in 0..1, None for one that is black all over: it marks no place. None without any."""
    regions = _as_masks(reference.region, label, "region")
    if regions is None:
        return None
    marks = [bool(one.any()) for one in regions]
    if not all(marks):
        warn_user(
            f"{label}: its region is black all over, as the mask of a picture without transparency, so it marks no "
            "place and counts as none; to switch the reference off, set its strength to 0"
        )
    return [one if marked else None for one, marked in zip(regions, marks, strict=True)]


def _spread(masks, count, label, kind):
    if masks is None:
        return [None] * count
    if len(masks) == 1:
        return [masks[0]] * count
    if len(masks) != count:
        raise input_error(
            f"{label} has {count} pictures but {len(masks)} {kind}s; connect one {kind}, or one per picture"
        )
    return list(masks)
