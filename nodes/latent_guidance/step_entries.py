"""Which step's own latent an evaluation looks at: asked at each evaluation of a run, in order."""

from ..host.when import ROUNDING
from .own_steps import own_steps_of, watchable


class StepEntries:
    """The evaluations of one run, told by a run of its sampler on a model that costs nothing, or by their levels."""

    def __init__(self):
        # None where the sampler has not been watched
        self._own = None

    def follow(self, run):
        """Whether the sampler of a run has a latent of its own that guidance can move; called before its first step."""
        if not watchable(run.sampler):
            return True
        self._own = own_steps_of(run.sampler, run.guider.model_patcher, run.schedule({}), run.shape[1])
        return self._own is not None

    def steps(self, step):
        """How many steps the run has."""
        return self._own.count if self._own is not None else step.steps

    def number_of(self, step):
        """The number of the step whose own latent this evaluation looks at; None for a trial of the sampler's."""
        moment = step.moment
        if self._own is not None:
            try:
                return self._own.enter(moment.sigma)
            except LookupError:
                # another patch has the sampler do something else
                self._own = None
        at_entry = moment.step_sigma * (1 - ROUNDING) <= moment.sigma <= moment.step_sigma * (1 + ROUNDING)
        return moment.step if at_entry else None
