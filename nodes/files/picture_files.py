"""Picture files of the pack as the host's IMAGE and MASK."""

import io

import numpy as np
import torch
from PIL import Image

from ..host.messages import input_error
from .disk_errors import UnreadableFileError, open_to_read, unreadable

_ADVICE = "reinstall the pack, which contains it"
# Pixels; the pack's own pictures have a tenth of it. A damaged file of a few bytes may say that it has billions.
_MOST = 1 << 24
# What the library raises for damaged pictures, beside OSError.
_DAMAGED = (SyntaxError, ValueError, LookupError, TypeError, ArithmeticError, EOFError, MemoryError)


def picture_file(path):
    """An IMAGE (1, H, W, 3) in 0..1; ValueError if the file cannot be read."""
    return _pixels(path, "RGB")


def mask_file(path):
    """A MASK (1, H, W) in 0..1, white as in the file; ValueError if the file cannot be read."""
    return _pixels(path, "L")


def _pixels(path, mode):
    try:
        with open_to_read(path) as file:
            content = file.read()
    except UnreadableFileError as error:
        raise input_error(str(error)) from error
    except OSError as error:
        raise input_error(str(unreadable(path, error))) from error
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as picture:
            if picture.width * picture.height > _MOST:
                raise ValueError(f"{picture.width}x{picture.height} pixels")
            pixels = np.array(picture.convert(mode))
    except (OSError, Image.DecompressionBombError, *_DAMAGED) as error:
        raise input_error(f"{path.name} in {path.parent} is damaged or not a picture; {_ADVICE}") from error
    return torch.from_numpy(pixels).float().div(255)[None]
