"""When layout guidance moves the latent: at which evaluations of a run."""

from ..host.progress import SHARE_ROUNDING
from ..latent_guidance.step_entries import StepEntries


class GuidedSteps:
    """The guided steps of one run: at most one evaluation in each, the one that looks at the sampler's own latent."""

    def __init__(self, settings):
        self.settings = settings
        self._entries = StepEntries()
        self._done = set()

    def come(self, run):
        """Whether a run begins before guidance ends."""
        sampling = run.guider.model_patcher.get_model_object("model_sampling")
        return run.progress(sampling).at(0) <= self.settings.guidance_end + SHARE_ROUNDING

    def follow(self, run):
        """Whether the sampler of a run has a latent of its own that guidance can move; called before its first step."""
        return self._entries.follow(run)

    def due(self, step):
        """Whether to guide at this evaluation. Asked at every one, in order."""
        number, settings = self._entries.number_of(step), self.settings
        if number is None or number in self._done or not step.moment.sigma > 0:
            return False
        progress = step.run.progress(step.base.model_sampling)
        done = progress.at(number / self._entries.steps(step))
        if done > settings.guidance_end + SHARE_ROUNDING or (progress.before + number) % settings.guidance_interval:
            return False
        self._done.add(number)
        return True
