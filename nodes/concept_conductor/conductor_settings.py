"""The numbers of one Concept Conductor, as its widgets bring them."""

from dataclasses import dataclass

from ..host.choices import check_listed

SPACES = ("vp", "sigma")
UNMATCHED = ("rectangle", "keep")


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
