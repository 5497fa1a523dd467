"""Which part of the result the rows of one attention show: where masks over the result are cut."""

from ...kernels.masks import WHOLE
from .calls import grid_of, latent_size_of


def frame_of(q, options, chunk, run):
    """(top, left, bottom, right) in 0..1 of the part of the result that the rows q (b, n, c) of a chunk show.

    None where nobody can tell: other packs may cut the picture into tiles, merge tokens or sample an unknown part.
    """
    height, width = grid_of(options)
    if q.shape[0] != chunk.stop - chunk.start or q.shape[1] != height * width:
        return None
    shown = latent_size_of(options)
    whole = run.latent_size or shown
    if shown == whole:
        return WHOLE
    if chunk.area is None or len(chunk.area) != 4:
        return None
    top, left = chunk.area[2:]
    return top / whole[0], left / whole[1], (top + shown[0]) / whole[0], (left + shown[1]) / whole[1]
