"""Crops: where a subject was cut out of a picture, for putting it back. The wire."""

from dataclasses import dataclass

import torch
from comfy_api.latest import io

CropSocket = io.Custom("PERSONALIZATION_CROP")


@dataclass(frozen=True, eq=False)
class Crop:
    """One picture's crop: the picture's size (H, W), the subject's box (left, top, width, height) in it, and the
    subject's mask (s, s) in the square around that box.
    """

    size: tuple[int, int]
    box: tuple[int, int, int, int]
    mask: torch.Tensor
