"""Which part of the result the rows of one attention show: where masks over the result are cut."""

from ...kernels.masks import WHOLE
from .calls import grid_of, latent_size_of, window_of
from .latents import pixels_of

# Aspects of a mask and of a picture that differ by more than this are said.
STRETCHED = 1.1


def frame_of(q, options, chunk, run):
    """(top, left, bottom, right) in 0..1 of the part of the result that the rows q (b, n, c) of a chunk show.

    None where nobody can tell: other packs may cut the picture into tiles, merge tokens or sample an unknown part.
    """
    height, width = grid_of(options)
    if q.shape[0] != chunk.stop - chunk.start or q.shape[1] != height * width:
        return None
    return frame_shown(latent_size_of(options), options, chunk, run)


def frame_shown(shown, options, chunk, run):
    """The same of the latents (h, w) that a chunk of a call of the UNet shows."""
    whole = run.latent_size or shown
    if shown == whole:
        return WHOLE
    window = window_frame(options, shown, whole)
    if window is not None:
        return window
    if chunk.area is None or len(chunk.area) != 4:
        return None
    top, left = chunk.area[2:]
    return top / whole[0], left / whole[1], (top + shown[0]) / whole[0], (left + shown[1]) / whole[1]


def window_frame(options, shown, whole):
    """The frame of a context window over the height or the width, None where a call runs no such window.

    shown, whole: (h, w) of the latents of the call and of the result.
    """
    dimension, indices = window_of(options) or (None, ())
    side = {2: 0, -2: 0, 3: 1, -1: 1}.get(dimension)
    if side is None or shown[side] != len(indices) or shown[1 - side] != whole[1 - side]:
        return None
    start, stop = indices[0], indices[-1] + 1
    # windows that go around the edge show no one part
    if list(indices) != list(range(start, stop)) or stop > whole[side]:
        return None
    frame = [0.0, 0.0, 1.0, 1.0]
    frame[side], frame[2 + side] = start / whole[side], stop / whole[side]
    return tuple(frame)


def regions_ignored(label):
    """What to say where `frame_of` cannot tell and a technique's references have regions."""
    return (
        f"{label}: regions of references are ignored where another node tiles the picture, merges its tokens or "
        "samples an unknown part of it; bypass that node, or use references without regions"
    )


def tell_of_stretch(run, label, what, masks):
    """Says in a run that masks (H, W) over the result, None among them, are of another aspect than the result.

    Mostly that is meant. But to a node that samples a large picture tile by tile each tile is a result of its own.
    """
    height, width = pixels_of(run.latent_size)
    for mask in (mask for mask in masks if mask is not None and mask.min() < mask.max()):
        ratio = mask.shape[-2] * width / (mask.shape[-1] * height)
        if max(ratio, 1 / ratio) > STRETCHED:
            size = f"{mask.shape[-1]}x{mask.shape[-2]}"
            run.tell(
                f"{label}: {what} of {size} is stretched over this picture of {width}x{height}; if this is one tile of "
                f"a larger picture, connect the MODEL from before {label}"
            )
            return
