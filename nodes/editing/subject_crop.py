"""A subject cut out of a picture as a square, and put back into its place (arXiv 2406.06258)."""

import torch
import torch.nn.functional as F

from ...kernels.picture_parts import bounds_of
from ..host.latents import batched_mask, bounded_mask, checked_images
from ..host.messages import input_error
from .crop_wire import Crop

BACKGROUNDS = ("white", "keep")
# Side of a crop, where none is asked for: the native one of SD1.5.
_SIDE = 512
# A mask keeps what is full white, and counts as set above the published 100 of 255 where it was resized.
WHITE, SET = 254.5 / 255, 100 / 255


def cropped(images, masks, size, grow, background):
    """(IMAGE (b, S, S, 3), MASK (b, S, S), a Crop for each) of the subjects of pictures.

    images (b, H, W, 3); masks of them, white on the subject; size: S, 0 for 512; grow: pixels by which the masks
    are enlarged; background: one of BACKGROUNDS. Raises ValueError for a mask without white.
    """
    images = checked_images(images, "image").cpu()
    masks = _checked(masks, "the picture")
    if len(masks) not in (1, len(images)):
        raise input_error(f"{len(masks)} masks came for {len(images)} pictures; connect one mask, or one per picture")
    found = [
        _cropped(image, masks[i % len(masks)], size or _SIDE, grow, background == "keep")
        for i, image in enumerate(images)
    ]
    squares, shown, crops = zip(*found, strict=True)
    return torch.stack(squares), torch.stack(shown), crops


def pasted(images, crops, edited, feather, masks=None):
    """IMAGE (n, H, W, 3): pictures with edited crops in the places of their subjects.

    images (b, H, W, 3) that the crops came from; edited (e, h, w, 3) results; masks: where the new subject stands in
    those, that of the crop if None; feather: width of the soft edge in pixels. Raises ValueError for pictures of
    another size, numbers that do not fit and a mask without white.
    """
    if not crops:
        raise input_error("crop is empty; connect the crop of Crop Subject")
    images, edited = checked_images(images, "image").cpu(), checked_images(edited, "edited").cpu()
    masks = None if masks is None else _checked(masks, "the edited picture")
    count = max(len(images), len(edited), len(crops))
    groups = {"pictures": images, "crops": crops, "edited pictures": edited} | (
        {} if masks is None else {"masks": masks}
    )
    for name, group in groups.items():
        if len(group) not in (1, count):
            raise input_error(f"{len(group)} {name} came, where others are {count}; connect one, or {count}")

    def of(group, i):
        return group[i % len(group)]

    return torch.stack(
        [
            _pasted(of(images, i), of(crops, i), of(edited, i), feather, None if masks is None else of(masks, i))
            for i in range(count)
        ]
    )


def _cropped(image, mask, size, grow, keep):
    mask = _resized(mask[..., None], image.shape[:2])[..., 0]
    kept = mask > WHITE
    if grow:
        # a square is the rows of its columns
        columns = F.max_pool2d(kept[None, None].float(), (2 * grow + 1, 1), 1, (grow, 0))
        kept = F.max_pool2d(columns, (1, 2 * grow + 1), 1, (0, grow))[0, 0] > 0
    left, top, width, height = box = _box(kept, "target", "thing to replace")
    side = max(width, height)
    before = (side - height) // 2, (side - width) // 2
    square = torch.ones(side, side, 3)
    alone = torch.zeros(side, side)
    rows, columns = slice(before[0], before[0] + height), slice(before[1], before[1] + width)
    alone[rows, columns] = kept[top : top + height, left : left + width].float()
    if keep:
        square = _square_of(image, (top - before[0], left - before[1]), side)
    else:
        part = image[top : top + height, left : left + width]
        square[rows, columns] = torch.where(alone[rows, columns][..., None] > 0, part, 1.0)
    crop = Crop(tuple(image.shape[:2]), box, alone)
    return _scaled(square, size), _scaled(alone[..., None], size)[..., 0], crop


def _square_of(image, corner, side):
    """A square of a picture from a corner (top, left) that may lie outside of it; white beyond its edges."""
    square = torch.ones(side, side, 3)
    starts = [max(0, -edge) for edge in corner]
    ends = [min(side, length - edge) for edge, length in zip(corner, image.shape[:2], strict=True)]
    rows, columns = (slice(start, end) for start, end in zip(starts, ends, strict=True))
    source = image[corner[0] + starts[0] : corner[0] + ends[0], corner[1] + starts[1] : corner[1] + ends[1]]
    square[rows, columns] = source
    return square


def _pasted(image, crop, edited, feather, mask):
    if tuple(image.shape[:2]) != crop.size:
        came, taken = "x".join(map(str, reversed(image.shape[:2]))), "x".join(map(str, reversed(crop.size)))
        raise input_error(f"the picture is {came}, the crop was taken from {taken}")
    mask = _resized((crop.mask if mask is None else mask)[..., None], edited.shape[:2])[..., 0]
    x, y, w, h = _box(mask > SET, "edited picture", "new subject")
    left, top, width, height = crop.box
    part = _resized(edited[y : y + h, x : x + w], (height, width))
    weight = (_resized(mask[y : y + h, x : x + w, None], (height, width)) > SET).float()
    if feather:
        weight = _blurred(weight[..., 0], feather)[..., None]
    result = image.clone()
    place = result[top : top + height, left : left + width]
    place += (part - place) * weight
    return result


def _blurred(weight, feather):
    """A map (h, w) blurred by a Gaussian whose edge is about so many pixels wide."""
    reach = 2 * feather
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / (feather / 2)) ** 2)
    kernel = kernel / kernel.sum()
    weight = F.conv2d(weight[None, None], kernel[None, None, :, None], padding=(reach, 0))
    return F.conv2d(weight, kernel[None, None, None, :], padding=(0, reach))[0, 0].clamp(0, 1)


def _checked(masks, label):
    masks = bounded_mask(batched_mask(masks), label, "mask").cpu()
    if masks.ndim != 3:
        raise input_error(f"the mask of {label} has the shape {tuple(masks.shape)}; connect a MASK (batch, H, W)")
    return masks


def _box(kept, label, what):
    """(left, top, width, height) of what a mask keeps (H, W); ValueError where it keeps nothing."""
    if not kept.any():
        raise input_error(f"the mask of the {label} is empty; paint it white on the {what}")
    rows, columns = bounds_of(kept)
    return columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start


def _resized(picture, size):
    """A picture (H, W, C) of another size, bilinear between the nearest pixels, as the published code has it."""
    if tuple(picture.shape[:2]) == tuple(size):
        return picture
    return F.interpolate(picture.movedim(-1, 0)[None], size=tuple(size), mode="bilinear")[0].movedim(0, -1)


def _scaled(picture, side):
    """A square (s, s, C) brought to the working side: area when it shrinks, bicubic when it grows."""
    if len(picture) == side:
        return picture
    how = {"mode": "area"} if len(picture) > side else {"mode": "bicubic"}
    return F.interpolate(picture.movedim(-1, 0)[None], size=(side, side), **how)[0].movedim(0, -1).clamp(0, 1)
