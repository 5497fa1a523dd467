"""From reference pictures to image tokens: the subject alone on white, the vision encoder, the adapter's projection."""

import comfy.model_management
import torch
import torch.nn.functional as F

from ...kernels.picture_parts import bounds_of, on_white_square
from ..host.messages import input_error
from ..references.reference_views import pictures_of
from .image_adapter import tower_of

# What a mask of 8 bits would still show.
VISIBLE = 0.5 / 255
# Of an encoder that does not tell (CLIP's).
SIDE = 224


def subject_tokens(adapter, clip_vision, references):
    """Image tokens (n, T, D) float32 of n references, in chain order.

    Several pictures of one reference are views: their tokens are averaged after the projection. ValueError, naming the
    reference, for pictures and masks that cannot be used, and for a vision encoder that does not fit the adapter.
    """
    check_vision(adapter, clip_vision)
    tokens = [_tokens_of(adapter, clip_vision, reference, n) for n, reference in enumerate(references, 1)]
    return torch.stack(tokens) if tokens else torch.empty(0, adapter.tokens, adapter.width)


def check_vision(adapter, clip_vision):
    """Raises ValueError where an adapter needs a vision encoder and none came."""
    if adapter.embed and clip_vision is None:
        raise input_error(
            f"clip_vision is empty, but {adapter.name} needs {adapter.embed.tower}; load it with Load CLIP Vision and "
            "connect it"
        )


def empty_tokens(adapter, zero_hidden=None):
    """Image tokens (T, D) float32 of no picture, for unconditional rows.

    zero_hidden (1, t, E): the encoder's hidden states of pixels that are all zero, for an adapter that reads those.
    """
    if adapter.reads_hidden_states:
        zero_hidden = checked_embeds(adapter, zero_hidden, "the empty picture")
    return adapter.empty(zero_hidden)[0].cpu()


def zero_pixels(clip_vision):
    """Pixels (1, 3, H, W) that are zero after normalisation: the mean colour, not black."""
    side = getattr(clip_vision, "image_size", SIDE)
    return torch.zeros(1, 3, side, side)


def squared(image):
    """The picture (H, W, 3) in the middle of a white square (1, S, S, 3): the encoder would cut its sides off."""
    return on_white_square(image[None])


def cut_out(image, mask, label):
    """The picture (H, W, 3) cropped to the box of its mask (Hm, Wm), white where the mask is black.

    Raises ValueError, naming the picture by its label, for a mask that is black all over.
    """
    size = tuple(image.shape[:2])
    if tuple(mask.shape) != size:
        mask = F.interpolate(mask[None, None], size=size, mode="bilinear")[0, 0]
    visible = mask > VISIBLE
    if not visible.any():
        raise input_error(
            f"{label}: its mask is black, so nothing is left of its picture; paint the subject white, "
            "or leave the mask unconnected"
        )
    rows, columns = bounds_of(visible)
    mask = mask.to(image)[..., None]
    return (image * mask + (1 - mask))[rows, columns]


def _tokens_of(adapter, clip_vision, reference, number):
    label, images, masks = pictures_of(reference, number)
    embeds = []
    for image, mask in zip(images, masks, strict=True):
        comfy.model_management.throw_exception_if_processing_interrupted()
        subject = squared(image if mask is None else cut_out(image, mask, label))
        found = clip_vision.encode_image(subject)
        embeds.append(checked_embeds(adapter, getattr(found, adapter.embed.output, None), label))
    return adapter.project(torch.cat(embeds)).mean(0).cpu()


def checked_embeds(adapter, embeds, label):
    """The encoder's output for a picture, which messages call by a label.

    ValueError unless it has the width that the adapter takes, and numbers only.
    """
    wanted = adapter.embed
    axes = 3 if adapter.reads_hidden_states else 2
    if embeds is None or embeds.ndim != axes:
        raise input_error(
            f"{adapter.name} expects {wanted.output} of {wanted.width} ({wanted.tower}), "
            f"this vision encoder gives none; load {wanted.tower} with Load CLIP Vision"
        )
    width = embeds.shape[-1]
    if width != wanted.width:
        raise input_error(
            f"{adapter.name} expects {wanted.output} of {wanted.width} ({wanted.tower}), got {width} "
            f"({tower_of(wanted.output, width)}); load {wanted.tower} with Load CLIP Vision"
        )
    if not torch.isfinite(embeds).all():
        raise input_error(f"{label}: the vision encoder produced NaN or infinite values; download its file again")
    return embeds
