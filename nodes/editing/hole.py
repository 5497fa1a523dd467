"""The hole of an inpainting: which cells of a latent, and which tokens of a layer, are to be painted anew."""

import torch
import torch.nn.functional as F

from ...kernels.masks import WHOLE, nearest_resize

# A token lies in the hole if all that bilinear sampling reads of it does: all but rounding.
_ALL = 1 - 1e-4


class Hole:
    """The holes of some pictures: masks (b, H, W) in pixels, white where these are painted anew."""

    def __init__(self, masks):
        self.masks = masks

    def cells(self, size, frame=WHOLE):
        """(b, h, w) at the size of a latent, 1 in the hole: the mask's pixel at the corner of each cell decides.

        frame: (top, left, bottom, right) of the part of the picture that the latent shows, in 0..1.
        """
        return (nearest_resize(self.masks, size, frame) > 0.5).float()

    def inside(self, size, grid, frame=WHOLE):
        """(b, n) bool: the tokens of a layer's grid that lie in the hole of a latent of a size; frame as above."""
        cells = self.cells(size, frame)
        return (F.interpolate(cells[:, None], grid, mode="bilinear")[:, 0] >= _ALL).flatten(1)

    def kept(self, run, pictures, size, grid, frame, device):
        """(`inside` of r rows (r, n) on a device, whether any of it is true, whether all is), made once in a run.

        pictures: the number of each row's; the masks stand for them in turn.
        """
        rows = tuple(number % len(self.masks) for number in pictures)
        known, key = run.state(("pilot hole", self), dict), (rows, size, grid, frame, device)
        if key not in known:
            # gradients read it as well
            with torch.inference_mode(False):
                inside = self.inside(size, grid, frame)[list(rows)]
                known[key] = inside.to(device), bool(inside.any()), bool(inside.all())
        return known[key]


def of_rows(tensor, rows):
    """A tensor (b, ...) with one entry for each of so many rows, which stand for the pictures in turn."""
    return tensor[torch.arange(rows) % len(tensor)]
