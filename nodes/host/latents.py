"""Latents and the pictures and masks beside them: sizes, forms, and what a VAE gave."""

import torch

from .messages import input_error

# One latent pixel is 8 x 8 pixels in every model this pack works with.
LATENT_STEP = 8


def pixels_of(latent_size):
    """(H, W) in pixels of a latent (h, w)."""
    return tuple(LATENT_STEP * side for side in latent_size)


def checked_images(images, label):
    """Pictures (b, H, W, 3) float32 of an IMAGE, with or without its batch axis, of 1, 3 or 4 channels, on the CPU.

    Raises ValueError, naming them by the label, for another form, for none, and for values that are not numbers.
    """
    images = images[None] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4):
        raise input_error(
            f"{label} has the shape {tuple(images.shape)}; connect an IMAGE (batch, height, width, 1, 3 or 4)"
        )
    if 0 in images.shape:
        raise input_error(
            f"{label} has no picture (shape {tuple(images.shape)}); connect an IMAGE with a picture in it"
        )
    # --gpu-only hands them out on the card
    images = images[..., :3].float().cpu()
    if not torch.isfinite(images).all():
        raise input_error(f"{label} has NaN or infinite values; connect a picture that was decoded without errors")
    return images.expand(-1, -1, -1, 3)


def latents_of(samples):
    """The latents (b, C, h, w) of a LATENT; ValueError for one without any."""
    latents = samples.get("samples")
    if latents is None or latents.ndim != 4 or 0 in latents.shape:
        raise input_error("samples has no latents; connect the LATENT of the sampler")
    return latents


def checked_latent(base, latent, label):
    """What a VAE gave (1, C, h, w), as float32 on the CPU, in its own units.

    base: the host's BaseModel. Raises ValueError, naming the picture by its label, for latents of another model and for
    values that are not numbers.
    """
    channels = base.latent_format.latent_channels
    if latent.ndim != 4 or latent.shape[1] != channels:
        raise input_error(
            f"the VAE makes latents of shape {tuple(latent.shape)}, the model needs {channels} channels and no frames; "
            "connect the VAE that belongs to the checkpoint"
        )
    if not torch.isfinite(latent).all():
        raise input_error(f"the VAE produced NaN or infinite values for {label}; start ComfyUI with --fp32-vae")
    return latent.float().cpu()


def centre_crop(size, wanted):
    """The middle part of a (H, W) frame that has the aspect of another, as slices."""
    height, width = size
    scale = min(height / wanted[0], width / wanted[1])
    kept = [max(1, round(side * scale)) for side in wanted]
    top, left = (height - kept[0]) // 2, (width - kept[1]) // 2
    return slice(top, top + kept[0]), slice(left, left + kept[1])


def batched_mask(mask):
    """A MASK with its batch axis and without one for channels; of another number of axes it stays as it is."""
    if mask.ndim == 4 and 1 in (mask.shape[1], mask.shape[-1]):
        mask = mask.squeeze(1 if mask.shape[1] == 1 else -1)
    return mask[None] if mask.ndim == 2 else mask


def bounded_mask(mask, label, kind):
    """The mask as float32 in 0..1 on the CPU; ValueError for an empty one and for values that are not numbers."""
    if 0 in mask.shape:
        raise input_error(f"the {kind} of {label} is empty (shape {tuple(mask.shape)}); connect a MASK of a picture")
    if not torch.isfinite(mask).all():
        raise input_error(f"the {kind} of {label} has NaN or infinite values; connect a MASK between 0 and 1")
    return mask.float().clamp(0, 1).cpu()
