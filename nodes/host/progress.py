"""Which part of a whole run a sampling run is. Limits that are fractions of a run are read in the whole one.

A whole run counts its steps, whatever its noise levels are. A part cannot: it takes its place from its first and last
noise level, on the scale on which its scheduler spaces them evenly.
"""

import math
from dataclasses import dataclass

from .when import percent_of

# Of shares of a run.
SHARE_ROUNDING = 1e-6
# Schedules with leading spacing begin below the largest noise level. Where nothing but noise is there, a run that
# begins before this percent of the model's levels is a whole one.
EARLY = 0.4


class Percent:
    """Noise levels by the model's timesteps, as most schedulers space them: the host's percent."""

    def __init__(self, model_sampling):
        self.sampling, self.lowest = model_sampling, float(model_sampling.sigma_min)

    def share(self, sigma):
        """Where a level lies between the largest one (0) and none (1)."""
        return percent_of(sigma, self.sampling)

    def sigma(self, share):
        """The level at a share."""
        return float(self.sampling.percent_to_sigma(share))


class Power:
    """Noise levels by a function of their size: roots (karras) or logarithms (exponential)."""

    def __init__(self, model_sampling, function, inverse):
        self.function, self.inverse = function, inverse
        self.lowest, self.highest = (float(level) for level in (model_sampling.sigma_min, model_sampling.sigma_max))

    def share(self, sigma):
        """Where a level lies between the largest one (0) and the lowest (1)."""
        first, last, here = (self.function(s) for s in (self.highest, self.lowest, max(sigma, self.lowest)))
        return min(1.0, max(0.0, (first - here) / (first - last)))

    def sigma(self, share):
        """The level at a share."""
        first, last = self.function(self.highest), self.function(self.lowest)
        return self.inverse(first + (last - first) * share)


@dataclass(frozen=True)
class Progress:
    """The part of a whole run that one sampling run is: from `start` to `end`, in 0..1, in so many steps."""

    start: float = 0.0
    end: float = 1.0
    steps: int = 1
    scale: object = None

    def at(self, share):
        """How far the whole run is where this share of our part is done."""
        return self.start + (self.end - self.start) * share

    @property
    def total(self):
        """The steps that the whole run would have."""
        return max(1, round(self.steps / self._length))

    @property
    def before(self):
        """The steps of it that lie before this part."""
        return round(self.steps * self.start / self._length)

    def completed(self, schedule):
        """Its noise levels and, where the part ends early, those that the whole run would go on to."""
        stride = (self.end - self.start) / self.steps
        if self.end >= 1 or stride <= 0:
            return schedule
        left = math.ceil((1 - self.end) / stride - 1e-3)
        rest = [self.scale.sigma(self.end + number * stride) for number in range(1, left)]
        return [*schedule, *rest, self.scale.lowest]

    @property
    def _length(self):
        return abs(self.end - self.start) or 1.0


def progress_of(schedule, model_sampling, fresh):
    """The Progress of a run over these noise levels; fresh: it begins with noise and nothing else."""
    if not schedule:
        return Progress()
    percent, steps = Percent(model_sampling), max(1, len(schedule) - 1)
    whole = fresh and percent.share(schedule[0]) < EARLY
    if (whole or percent.share(schedule[0]) == 0) and percent.share(schedule[-1]) == 1:
        return Progress(0.0, 1.0, steps)
    scale = min((percent, *_powers(model_sampling)), key=lambda scale: _unevenness(scale, schedule))
    return Progress(0.0 if whole else scale.share(schedule[0]), scale.share(schedule[-1]), steps, scale)


def _powers(sampling):
    return (
        Power(sampling, lambda sigma: sigma ** (1 / 7), lambda value: value**7),
        Power(sampling, math.log, math.exp),
    )


def _unevenness(scale, schedule):
    """How far the levels are from even steps on a scale, beside their mean; 0 where there are too few to tell."""
    shares = [scale.share(sigma) for sigma in schedule if sigma > 0]
    steps = [after - before for before, after in zip(shares, shares[1:])]
    if len(steps) < 2:
        return 0.0
    mean = sum(steps) / len(steps)
    return max(abs(step - mean) for step in steps) / (abs(mean) or 1.0)
