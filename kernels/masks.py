"""Picture-space mask -> one value per token of an attention layer."""

import math

import torch
import torch.nn.functional as F

WHOLE = (0.0, 0.0, 1.0, 1.0)


def is_binary(mask):
    """True if every value of the mask is 0 or 1."""
    return bool(((mask == 0) | (mask == 1)).all())


def nearest_resize(mask, size, frame=WHOLE):
    """mask[..., floor(i·H/h), floor(j·W/w)]: nearest neighbour with floor index, any dtype.

    mask (..., H, W); size (h, w); frame (top, left, bottom, right) is the part of the mask that is shown, in 0..1.
    FreeCustom's resize of reference masks (published code, `interpolate(mode="nearest")`).
    """
    rows = _floor_index(mask.shape[-2], size[0], frame[0], frame[2], mask.device)
    columns = _floor_index(mask.shape[-1], size[1], frame[1], frame[3], mask.device)
    return mask[..., rows[:, None], columns]


def area_resize(mask, size, frame=WHOLE):
    """Mean of the mask over each cell of an (h, w) grid; mask (r, H, W) float, returns (r, h, w).

    frame as in `nearest_resize`, rounded outwards to whole pixels.
    """
    top, bottom = _whole_pixels(mask.shape[-2], frame[0], frame[2])
    left, right = _whole_pixels(mask.shape[-1], frame[1], frame[3])
    return F.adaptive_avg_pool2d(mask[..., top:bottom, left:right], size)


def bilinear_resize(mask, size, frame=WHOLE):
    """The mask at the centres of an (h, w) grid, bilinear between its own centres, its edge repeated; no antialias.

    mask (r, H, W) float, returns (r, h, w); frame as in `nearest_resize`. On the whole frame this is torch's
    `interpolate(mode="bilinear", align_corners=False)`.
    """
    if frame == WHOLE:
        return F.interpolate(mask[None], size=size, mode="bilinear", align_corners=False)[0]
    top, left, bottom, right = frame
    rows, columns = (
        # grid_sample counts from -1 to 1 across the whole mask
        2 * (start + (torch.arange(count, device=mask.device) + 0.5) * ((stop - start) / count)) - 1
        for count, start, stop in zip(size, (top, left), (bottom, right), strict=True)
    )
    points = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1).to(mask)
    return F.grid_sample(mask[None], points[None], "bilinear", "border", align_corners=False)[0]


def regions_at(regions, size, frame=WHOLE):
    """Regions over a picture (H, W) each, of any sizes, or None for the whole of it, on an (h, w) grid: (n, h, w).

    Bilinear; frame as in `nearest_resize`.
    """
    return torch.cat(
        [torch.ones(1, *size) if one is None else bilinear_resize(one[None], size, frame) for one in regions]
    )


def token_mask(mask, size, frame=WHOLE):
    """Mask at the tokens of a layer: nearest for a mask of zeros and ones, area mean for a grey one.

    mask (H, W) in 0..1; returns (h, w) float32.
    """
    if is_binary(mask):
        return nearest_resize(mask, size, frame).float()
    return area_resize(mask.float()[None], size, frame)[0]


def kept_tokens(mask, size, frame=WHOLE, bilinear=False):
    """The tokens that a mask keeps: index (m,) int64 into the flat (h, w) grid, ln of the mask there (m,) float32.

    As `token_mask` brings it to the grid, or bilinear.
    """
    of_tokens = bilinear_resize(mask.float()[None], size, frame)[0] if bilinear else token_mask(mask, size, frame)
    values = of_tokens.flatten()
    index = values.nonzero()[:, 0]
    return index, values[index].log()


def box_mask(size, box, feather=0.0):
    """Mask (H, W): 1 at pixels whose centre lies in the box, with a linear ramp inside its edges.

    size (H, W); box (top, left, bottom, right) and feather (width of the ramp) in 0..1, feather of the shorter side.
    The ramp is left out where the box ends at the edge of the picture, so that a half keeps its outer border.
    """
    inside = []
    for length, start, stop in zip(size, box[:2], box[2:], strict=True):
        centre = (torch.arange(length) + 0.5) / length
        # pixels to the nearer edge of the box, counted inwards; an edge of the picture is no edge of the box
        from_start = (centre - start) * length if start > 0 else torch.full_like(centre, math.inf)
        to_stop = (stop - centre) * length if stop < 1 else torch.full_like(centre, math.inf)
        inside.append(torch.minimum(from_start, to_stop))
    depth = torch.minimum(inside[0][:, None], inside[1][None, :])
    ramp = feather * min(size)
    return (depth / ramp).clamp(0, 1) if ramp > 0 else (depth >= 0).float()


def _whole_pixels(length, start, stop):
    # a millionth of a pixel undoes the rounding of fractions that mean whole pixels
    return math.floor(start * length + 1e-6), math.ceil(stop * length - 1e-6)


def _floor_index(length, count, start, stop, device):
    if (start, stop) == (0.0, 1.0):
        return torch.arange(count, device=device) * length // count
    # in double: a frame's edges are fractions of whole pixels, and 1e-9 pixels undo their rounding
    position = start * length + torch.arange(count, device=device, dtype=torch.float64) * (
        (stop - start) * length / count
    )
    return (position + 1e-9).floor().long().clamp_(0, length - 1)
