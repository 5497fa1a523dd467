"""One picture as SAM sees it: its frame of 1024 pixels, its features, and what leads from one to the other."""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ..host.latents import batched_mask
from .sam_decoder import decoded
from .sam_file import GRID, PIXELS, SAM_PATCH

# Of 0 to 255, for red, green and blue.
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class SAMPicture:
    """A picture (H, W, 3) in SAM's frame: longest side 1024, padded right and below."""

    def __init__(self, model, picture, device):
        self.model, self.size = model, tuple(picture.shape[:2])
        scale = PIXELS / max(self.size)
        self.inner = tuple(max(1, int(side * scale + 0.5)) for side in self.size)
        shown = _resized(picture, self.inner).to(device)
        shown = (shown - shown.new_tensor(MEAN)) / shown.new_tensor(STD)
        features = model.vision_encoder(self._padded(shown.movedim(-1, 0)))
        self.features = features[0]

    def tokens_of(self, mask):
        """The features (n, C) of the tokens that a mask (H, W) of the picture keeps."""
        mask = batched_mask(mask)
        if mask.shape[1:] != self.size:
            mask = F.interpolate(mask[None], self.size, mode="bilinear")[0]
        # as the published code has it: the mask is one of the picture's channels, and what is above its mean is kept
        red = _resized(mask[0][..., None].expand(-1, -1, 3), self.inner)[..., 0] - MEAN[0]
        kept = F.interpolate(self._padded(red[None]), (GRID, GRID), mode="bilinear")[0, 0] > 0
        return self.features[0][:, kept.to(self.features.device)].T

    def similarity(self, vector):
        """How like a vector (C,) each pixel (H, W) is, as the cosine of their features."""
        unit = F.normalize(self.features[0], dim=0)
        found = torch.einsum("c,chw->hw", F.normalize(vector, dim=0), unit)[None, None]
        return self.whole(F.interpolate(found, scale_factor=4, mode="bilinear"))[0, 0]

    def whole(self, maps):
        """Maps (1, n, 256, 256) of the frame at the size of the picture (1, n, H, W)."""
        maps = F.interpolate(maps, (PIXELS, PIXELS), mode="bilinear")
        return F.interpolate(maps[..., : self.inner[0], : self.inner[1]], self.size, mode="bilinear")

    def guidance(self, similarity):
        """The similarity (H, W) as a map (4096,) in 0..1 on the tokens, 0 where these show no picture."""
        spread = ((similarity - similarity.mean()) / similarity.std())[None, None]
        part = [-(-side // SAM_PATCH) for side in self.inner]
        found = F.interpolate(spread, part, mode="bilinear")[0, 0].sigmoid()
        return F.pad(found, (0, GRID - part[1], 0, GRID - part[0])).flatten()

    def masks(self, points, labels, box=None, logits=None, guide=None):
        """(logits (4, 256, 256), scores (4,)) of points (n, 2) and a box (4,) in the picture's pixels (x, y)."""
        factors = self.features.new_tensor([inner / side for inner, side in zip(self.inner, self.size, strict=True)])
        factors = factors.flip(0)
        points = torch.as_tensor(points, device=factors.device) * factors
        labels = torch.as_tensor(labels, device=factors.device)
        if box is not None:
            box = torch.as_tensor(box, device=factors.device) * factors.repeat(2)
        return decoded(self.model, self.features, points, labels, box, logits, guide)

    def _padded(self, channels):
        return F.pad(channels, (0, PIXELS - self.inner[1], 0, PIXELS - self.inner[0]))[None]


def _resized(picture, size):
    """A picture (H, W, 3) in 0..1 at another size, in 0..255: by Pillow, since SAM was trained on what that makes."""
    bytes_ = (picture.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    return torch.from_numpy(np.asarray(Image.fromarray(bytes_).resize(size[::-1], Image.BILINEAR)).astype("float32"))
