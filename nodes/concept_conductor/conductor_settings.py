"""The numbers of one Concept Conductor, as its widgets bring them."""

import math
from dataclasses import dataclass

from ..host.choices import check_listed
from ..host.messages import input_error

SPACES = ("vp", "sigma")
UNMATCHED = ("rectangle", "keep")
NOT_NEGATIVE = (
    "guidance_weight",
    "guidance_end",
    "custom_factor",
    "refine_start",
    "refine_end",
    "refine_interval",
    "iou_threshold",
)
FROM_ONE = ("guidance_interval", "kmeans_restarts")


@dataclass(frozen=True)
class ConductorSettings:
    """The numbers of one Concept Conductor; limits are fractions of the steps of a run."""

    guidance_weight: float = 10.0
    guidance_end: float = 0.30
    guidance_interval: int = 1
    custom_factor: float = 1.0
    gradient_space: str = "vp"
    refine_start: float = 0.25
    refine_end: float = 0.40
    refine_interval: float = 0.025
    iou_threshold: float = 0.0
    kmeans_restarts: int = 100
    rect_mask: bool = False
    use_loss_mask: bool = False
    unmatched: str = "rectangle"
    close_seams: bool = False
    cache_bytes: int = 1 << 30

    def __post_init__(self):
        check_listed("gradient_space", self.gradient_space, SPACES)
        check_listed("unmatched", self.unmatched, UNMATCHED)
        for name in NOT_NEGATIVE:
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0:
                raise input_error(f"{name} is {value}; enter a number of at least 0")
        for name in FROM_ONE:
            if getattr(self, name) < 1:
                raise input_error(f"{name} is {getattr(self, name)}; enter 1 or more")
