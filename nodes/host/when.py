"""When: the sigma, the step and the window of one UNet call. Nothing is counted."""

import math
from dataclasses import dataclass

from .messages import input_error

# A sampler's sigma may differ from its schedule by rounding.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Moment:
    """One noise level: `sigma` of this call, and the `step` it belongs to, which began at `step_sigma`."""

    sigma: float
    step: int
    step_sigma: float


def moment_of(sigma, schedule):
    """The moment of a call at `sigma`; `schedule` is the sampler's list of sigmas, or None if nobody gave one.

    The step is the interval sigma_i >= sigma > sigma_(i+1): a midpoint belongs to the step that it refines.
    """
    if not schedule:
        return Moment(sigma, 0, sigma)
    reached = [i for i, start in enumerate(schedule) if start >= sigma * (1 - ROUNDING)]
    step = reached[-1] if reached else 0
    return Moment(sigma, step, schedule[step])


@dataclass(frozen=True)
class Window:
    """The part of sampling, in percent, in which something acts."""

    start_percent: float = 0.0
    end_percent: float = 1.0

    def __post_init__(self):
        for name in ("start_percent", "end_percent"):
            value = getattr(self, name)
            if not math.isfinite(value) or not 0 <= value <= 1:
                raise input_error(f"{name} is {value}; enter a number from 0 to 1")
        if self.start_percent > self.end_percent:
            raise input_error(
                f"start_percent {self.start_percent} is after end_percent {self.end_percent}; "
                "lower the first or raise the second"
            )

    def holds(self, moment, model_sampling):
        """True if the step of this moment began inside the window (both ends included, as the host does)."""
        start = float(model_sampling.percent_to_sigma(self.start_percent))
        end = float(model_sampling.percent_to_sigma(self.end_percent))
        return end * (1 - ROUNDING) <= moment.step_sigma <= start * (1 + ROUNDING)
