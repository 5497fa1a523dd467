"""The layout picture of one run: fitted, encoded, and inverted to the noise levels of the sampler."""

import weakref
from dataclasses import dataclass

import comfy.utils
import torch

from ..host.latents import centre_crop, checked_images, checked_latent, pixels_of
from ..host.messages import input_error, warn_user
from ..host.prompt_extras import say_unused
from .inversion_cache import LAYOUT_FILES
from .kept_inversions import inversion_of

# {LayoutPicture: (size, its latent of that size)}: one at a time, since a size is seldom changed
_LATENTS = weakref.WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class LayoutPicture:
    """A picture with its prompt. Tensors stay on the CPU."""

    pixels: torch.Tensor  # (1, H, W, 3)
    text: tuple  # (context, values) of what it shows
    vae: object
    steps: int  # of the inversion; 0: those of the sampler
    cache_bytes: int

    def latent(self, base, latent_size):
        """(1, C, h, w) in the sampler's units, for a result of this size. The VAE is loaded for it."""
        known = _LATENTS.get(self)
        if known is None or known[0] != latent_size:
            latent = self.vae.encode(fitted_to(self.pixels, pixels_of(latent_size)))
            latent = base.process_latent_in(checked_latent(base, latent, "layout_image"))
            known = _LATENTS[self] = latent_size, latent
        return known[1]

    def inversion(self, base, latent_size, schedule, device):
        """An Inversion for a run on a device whose noise levels are `schedule`: from disk where there is one."""
        latent = self.latent(base, latent_size).to(device)
        return inversion_of(base, latent, self.text, self.steps, schedule, LAYOUT_FILES, self.cache_bytes)


def fitted_to(pixels, size):
    """A picture (1, H, W, C) at another size (H', W'): its middle, if the aspect differs by more than a pixel."""
    rows, columns = centre_crop(pixels.shape[1:3], size)
    part = pixels[:, rows, columns, :3]
    lost = [full - kept for full, kept in zip(pixels.shape[1:3], part.shape[1:3], strict=True)]
    if max(lost) > 1:
        height, width = pixels.shape[1:3]
        warn_user(
            f"layout_image is {width}x{height}, the result is {size[1]}x{size[0]}: its edges are cropped to fit "
            f"({lost[1]} pixels of its width, {lost[0]} of its height)"
        )
    if tuple(part.shape[1:3]) == tuple(size):
        return part.contiguous()
    method = "area" if part.shape[1] > size[0] else "bicubic"
    resized = comfy.utils.common_upscale(part.movedim(-1, 1), size[1], size[0], method, "disabled")
    return resized.movedim(1, -1).clamp(0, 1).contiguous()


def picture_of(image, positive, vae):
    """(pixels (1, H, W, 3), (context, values)) of a layout picture and its prompt, as the sockets bring them.

    Raises ValueError for what is missing or has another form.
    """
    missing = [name for name, value in (("layout_positive", positive), ("vae", vae)) if not value]
    if missing:
        raise input_error(
            f"layout_image also needs {' and '.join(missing)}; connect a CLIP Text Encode that describes the picture, "
            "and the checkpoint's VAE"
        )
    image = checked_images(image, "layout_image")
    if len(image) > 1:
        warn_user(f"layout_image is a batch of {len(image)} pictures; the first one is used for all results")
    say_unused(positive, "layout_positive", "only its text is used")
    return image[:1].cpu(), tuple(positive[0][:2])


def layout_of(image, positive, vae, steps, cache_bytes):
    """The LayoutPicture of what the sockets bring, None without a picture.

    Raises ValueError as `picture_of`, and for a negative number of steps.
    """
    if image is None:
        return None
    if steps < 0:
        raise input_error(f"inversion_steps is {steps}; enter 1 or more, or 0 for the steps of the sampler")
    return LayoutPicture(*picture_of(image, positive, vae), vae, steps, cache_bytes)
