"""References: pictures of the subjects that the result shall show. The wire."""

from dataclasses import dataclass

import torch
from comfy_api.latest import io

References = io.Custom("PERSONALIZATION_REFERENCES")


@dataclass(frozen=True)
class Reference:
    """One subject: its pictures (batch, H, W, 3) and what the user says about them."""

    image: torch.Tensor
    word: str = ""
    strength: float = 1.0
    prompt: str = ""
    mask: torch.Tensor | None = None
    region: torch.Tensor | None = None
    # where its picture was cut out of a larger one: ((top, left), (height, width) of that one) in pixels
    cut: tuple | None = None
