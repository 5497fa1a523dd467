"""Golden noise of any size from a network of one size: windows side by side, nothing resized, nothing averaged.

Resizing noise copies neighbours (correlation 0.16 to 0.5) or lowers its variance; windows keep the noise as it is.
"""

import torch


def canvas_size(size, side):
    """The size (H, W) on which windows of `side` fit: at least one window each way."""
    return tuple(max(length, side) for length in size)


def centre(canvas, size):
    """The slices (rows, columns) of a canvas's middle; size (h, w)."""
    starts = [(outer - inner) // 2 for outer, inner in zip(canvas, size, strict=True)]
    return tuple(slice(start, start + inner) for start, inner in zip(starts, size, strict=True))


def window_starts(length, side):
    """Where windows of `side` begin on an axis: as few as cover it, evenly spread, the last flush with its end."""
    windows = -(-length // side)
    return [i * (length - side) // (windows - 1) for i in range(windows)] if windows > 1 else [0]


def tiled(canvas, side, network):
    """network(window) of all windows (b, c, side, side) put together: (b, c, H, W) as the canvas.

    Each pixel comes from the window whose centre is nearest, the first of two.
    """
    out = torch.empty_like(canvas)
    rows, columns = (_shares(length, side) for length in canvas.shape[-2:])
    for top, own_rows in rows:
        for left, own_columns in columns:
            golden = network(canvas[..., top : top + side, left : left + side])
            out[..., own_rows, own_columns] = golden[..., _below(own_rows, top), _below(own_columns, left)]
    return out


def _shares(length, side):
    """(start of a window, slice of the pixels that take it) along one axis."""
    starts = window_starts(length, side)
    # the last pixel that is not nearer to the second of two neighbours
    cuts = [(first + second + side - 1) // 2 + 1 for first, second in zip(starts, starts[1:])]
    return [(start, slice(*own)) for start, own in zip(starts, zip([0, *cuts], [*cuts, length]), strict=True)]


def _below(part, start):
    return slice(part.start - start, part.stop - start)
