"""When: the sigma, the step and the window of one UNet call. Nothing is counted."""

import copy
import math
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch

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

    The step is the interval sigma_i >= sigma > sigma_(i+1): a midpoint belongs to the step that it refines. Where a
    sampler goes back to noise (Flip Sigmas) levels rise: it is sigma_i <= sigma < sigma_(i+1).
    """
    if not schedule:
        return Moment(sigma, 0, sigma)
    if schedule[0] < schedule[-1]:
        reached = [i for i, start in enumerate(schedule) if start <= sigma * (1 + ROUNDING)]
    else:
        reached = [i for i, start in enumerate(schedule) if start >= sigma * (1 - ROUNDING)]
    step = reached[-1] if reached else 0
    return Moment(sigma, step, schedule[step])


@dataclass(frozen=True)
class Window:
    """The part of sampling, in percent, in which something acts."""

    start_percent: float = 0.0
    end_percent: float = 1.0
    # the widgets of the two
    names: tuple = field(default=("start_percent", "end_percent"), compare=False)

    def __post_init__(self):
        for name, value in zip(self.names, (self.start_percent, self.end_percent), strict=True):
            if not math.isfinite(value) or not 0 <= value <= 1:
                raise input_error(f"{name} is {value}; enter a number from 0 to 1")
        if self.start_percent > self.end_percent:
            start, end = self.names
            raise input_error(
                f"{start} {self.start_percent} is after {end} {self.end_percent}; lower the first or raise the second"
            )

    def holds(self, moment, model_sampling):
        """True if the step of this moment began inside the window (both ends included, as the host does)."""
        model_sampling = in_main_memory(model_sampling)
        start = float(model_sampling.percent_to_sigma(self.start_percent))
        end = float(model_sampling.percent_to_sigma(self.end_percent))
        return end * (1 - ROUNDING) <= moment.step_sigma <= start * (1 + ROUNDING)


def percent_of(sigma, model_sampling):
    """Where a noise level lies between the model's largest one (0) and none (1): what the host's percent counts."""
    model_sampling = in_main_memory(model_sampling)
    if sigma >= float(model_sampling.percent_to_sigma(1e-6)) * (1 - ROUNDING):
        return 0.0
    if sigma <= float(model_sampling.percent_to_sigma(1 - 1e-6)) * (1 + ROUNDING):
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if float(model_sampling.percent_to_sigma(middle)) > sigma else (low, middle)
    return high


def whole_timestep(sigma, model_sampling):
    """The model's timestep at a noise level, a whole number also where the model reads something else."""
    model_sampling = in_main_memory(model_sampling)
    timestep = model_sampling.timestep(torch.tensor([sigma]).to(model_sampling.sigma_max))
    if not timestep.is_floating_point():
        return int(timestep[0])
    return round(999 * (1 - percent_of(sigma, model_sampling)))


def unet_timestep(sigma, model_sampling):
    """What the host gives the UNet as the timestep at a noise level, a number."""
    return float(in_main_memory(model_sampling).timestep(torch.tensor([sigma])).float()[0])


# {a model sampling object of the host: (its tables, the same in main memory)}
_TABLES = WeakKeyDictionary()


def in_main_memory(model_sampling):
    """A model sampling object of the host with its tables in main memory: what it tells of a number is waited for on a
    card, at every step.
    """
    tables = getattr(model_sampling, "_buffers", {})
    if all(table is None or table.device.type in ("cpu", "meta") for table in tables.values()):
        return model_sampling
    known = _TABLES.get(model_sampling)
    if known is None or any(known[0].get(name) is not table for name, table in tables.items()):
        here = {name: None if table is None else table.cpu() for name, table in tables.items()}
        known = _TABLES[model_sampling] = dict(tables), here
    found = copy.copy(model_sampling)
    found.__dict__["_buffers"] = dict(known[1])
    return found
