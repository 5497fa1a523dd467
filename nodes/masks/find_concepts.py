"""Find Concepts: the things in one picture, each with its mask, as the checkpoint itself sees them."""

import colorsys

import comfy.utils
import torch

from ...kernels.concept_clusters import found_concepts
from ...kernels.masks import nearest_resize
from ..host.blocks import unet_of
from ..host.families import native_side
from ..host.latents import checked_images, checked_latent
from ..host.messages import input_error, warn_user
from ..host.unet_inputs import check_prompt
from .concept_maps import concept_maps

# The side of the smallest picture in which there is anything to tell apart, and of the steps of the model's sizes.
_SMALLEST, _STEP = 64, 64
# What a model looks at is at least as large: on coarser grids things and their surroundings share cells.
_LOOKED_AT = 256
# How dark what is no thing becomes in the coloured picture, and how much of a thing's colour lies over it.
_DARK, _COLOUR = 0.25, 0.55


def find_concepts(model, clip, vae, image, least, max_side):
    """(MASK (n, H, W) of n things, IMAGE (1, H, W, 3) with each in a colour of its own, n).

    least: how many pieces the picture is cut into at least before alike ones are joined; max_side: the longer side of
    the grid that is looked at. Raises ValueError for a picture under 64 x 64 pixels, and where nothing stands out.
    """
    unet_of(model, "Find Concepts")
    pixels = _one_picture(image)
    latent = _latent(model, vae, pixels)
    text = clip.encode_from_tokens_scheduled(clip.tokenize(""))[0]
    check_prompt(model, [text], "the empty prompt of clip")
    maps = concept_maps(model, latent, text, _grid(latent.shape[-2:], max_side))
    masks = found_concepts(maps.looks, maps.saliency, maps.grid, least)
    if not masks:
        raise input_error(
            "nothing stands out in this picture, so there is nothing to cut out; use a picture with a clear subject, "
            "lower least, or paint the masks"
        )
    masks = nearest_resize(torch.stack(masks).float().cpu(), pixels.shape[1:3])
    return masks, _coloured(pixels[0], masks)[None], len(masks)


def _one_picture(image):
    pixels = checked_images(image, "image").cpu()
    height, width = pixels.shape[1:3]
    if min(height, width) < _SMALLEST:
        raise input_error(f"image is {width}x{height} pixels; connect a picture of at least {_SMALLEST}x{_SMALLEST}")
    if len(pixels) > 1:
        warn_user(f"image is a batch of {len(pixels)} pictures; the first one is used")
    return pixels[:1]


def _latent(model, vae, pixels):
    """(1, C, h, w) of a picture at the model's own number of pixels, in the sampler's units."""
    height, width = pixels.shape[1:3]
    scale = max(native_side(model), _LOOKED_AT) / (height * width) ** 0.5
    size = tuple(max(_STEP, round(side * scale / _STEP) * _STEP) for side in (height, width))
    method = "area" if scale < 1 else "bicubic"
    resized = comfy.utils.common_upscale(pixels.movedim(-1, 1), size[1], size[0], method, "disabled")
    latent = vae.encode(resized.movedim(1, -1).clamp(0, 1).contiguous())
    return model.model.process_latent_in(checked_latent(model.model, latent, "image"))


def _grid(latent_size, max_side):
    """The latent's own grid, no side longer than that."""
    shrink = min(1, max_side / max(latent_size))
    return tuple(max(1, round(side * shrink)) for side in latent_size)


def _coloured(picture, masks):
    """The picture (H, W, 3), dark where no mask (n, H, W) lies and with a colour over each."""
    shown = picture * _DARK
    for number, mask in enumerate(masks):
        # as far apart as so many hues can be
        colour = torch.tensor(colorsys.hsv_to_rgb(number / len(masks), 0.9, 1.0))
        shown = torch.where(mask[..., None] > 0, picture * (1 - _COLOUR) + colour * _COLOUR, shown)
    return shown
