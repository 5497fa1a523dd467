"""The places that a training gives to a picture: drawn once, each a VAE encode; steps then choose among them."""

from dataclasses import replace

import torch.nn.functional as F

from ...kernels.masks import nearest_resize
from ...kernels.placement import flipped, middle_mean, place_cropped, place_filling, place_person, shrunk_to_side
from ..host.latents import LATENT_STEP
from ..host.messages import warn_user
from ..host.seeded import seeded_shares

PLACEMENTS = {"crop": place_cropped, "human": place_person, "fill": place_filling}
# A placement takes fewer numbers than this.
_NUMBERS = 16
# Draws until the placement that shows most of the masks is taken; how much of them, beside that, any has to show.
_TRIES, _KEPT = 8, 0.25


def placements_of(image, masks, way, side, *, count, seed, flip=False):
    """`count` Placed of one picture (H, W, 3) on a canvas of side x side, none of which crops a mask away: a picture
    whose masks no square part shows together is fitted as a whole, with black beside it.

    masks (n, H, W) in 0..1, n may be 0; way: a key of PLACEMENTS; seed: a text that names the picture and the training;
    flip: whether half of them are mirrored.
    """
    pixels = image.movedim(-1, 0)
    small = shrunk_to_side(pixels, masks, side)
    shown = PLACEMENTS[way](*small, side, _Around(small[1], side))
    least = _KEPT * _areas(shown.masks)
    if way == "crop" and (_areas(shown.masks) < _KEPT * _areas(small[1])).any():
        shown, least = place_person(*small, side, _Around(small[1], side)), _KEPT * _areas(small[1])
    made = []
    for number in range(count):
        placed = _placed(*small, PLACEMENTS[way], shown, least, f"{seed}/placement {number}")
        if flip and float(seeded_shares(f"{seed}/flip {number}", (1,))) < 0.5:
            placed = flipped(placed)
        made.append(replace(placed, original=tuple(image.shape[:2])))
    return made


def masks_at_latents(masks, label, nearest=False):
    """Masks (n, H, W) at latent pixels: (n, h, w). What is too small for the grid gets the one cell it touches.

    nearest: as Break-A-Scene has it; else the mean of each cell's middle, as Mix-of-Show. Says of which picture, named
    by the label, a mask was too small.
    """
    size = tuple(side // LATENT_STEP for side in masks.shape[-2:])
    cells = nearest_resize(masks, size).float() if nearest else middle_mean(masks.float(), LATENT_STEP)
    gone = (cells.flatten(1).amax(1) == 0) & (masks.flatten(1).amax(1) > 0)
    if gone.any():
        warn_user(
            f"{label}: the mask is smaller than the cells of 8x8 pixels that a model learns by, so little of the "
            "subject is learned; crop the picture closer"
        )
        cells[gone] = F.adaptive_max_pool2d(masks.float()[gone], size)
    return cells


def whole_masks(masks, size):
    """A subject's masks (n, Hm, Wm) at the pixels (H, W) of its pictures."""
    if tuple(masks.shape[-2:]) == tuple(size):
        return masks
    return F.interpolate(masks[None].float(), size=tuple(size), mode="bilinear", antialias=True)[0]


def _placed(pixels, masks, way, shown, least, name):
    """A placement by its name; `shown`, where each time less than the least area was left of some mask."""
    for attempt in range(_TRIES):
        placed = way(pixels, masks, shown.pixels.shape[-1], _Drawn(f"{name}/{attempt}"))
        if (_areas(placed.masks) >= least).all():
            return placed
    return shown


def _areas(masks):
    return masks.sum((1, 2))


class _Drawn:
    """Numbers by a name, in order."""

    def __init__(self, name):
        self._shares = iter(seeded_shares(name, (_NUMBERS,)).double().tolist())

    def share(self):
        return next(self._shares)

    def integer(self, most):
        return min(most, int(next(self._shares) * (most + 1)))


class _Around:
    """Draws that crop nothing, or to the part with the masks in its middle."""

    def __init__(self, masks, side):
        rows, columns = (masks.sum(0).amax(axis).nonzero().flatten().double() for axis in (1, 0))
        middles = [float(places.mean()) if len(places) else 0.0 for places in (columns, rows)]
        self._corners = iter(max(0, round(middle - side / 2)) for middle in (*middles, *middles))

    def share(self):
        return 1.0

    def integer(self, most):
        return min(most, next(self._corners))
