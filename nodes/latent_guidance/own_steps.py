"""Which evaluations of a sampler look at its own latent: guidance moves that one, and no trial that is thrown away."""

from types import SimpleNamespace

import torch

from ..host.when import ROUNDING

# Side of the latent that a sampler is watched with; some change the size on the way.
WATCHED_SIDE = 8
# These go on from the latent that they evaluate, but hand their callback the one they began with.
STALE_CALLBACK = ("sample_ipndm", "sample_ipndm_v", "sample_deis")
# Samplers of other packs may keep state or show pictures: they are not run twice.
WATCHED = ("comfy.", "comfy_extras.")


class OwnSteps:
    """The evaluations of one run of a sampler, as a run of it on a model that costs nothing has shown them."""

    def __init__(self, evaluations):
        """evaluations: (sigma, number of the step whose own latent is evaluated or None), in order."""
        self._evaluations = evaluations
        self._next = 0
        self.count = sum(step is not None for _, step in evaluations)

    def enter(self, sigma):
        """Called with the noise level of each evaluation: the step whose own latent it looks at, None for a trial.

        Raises LookupError where the sampler does not do as it did when it was watched.
        """
        known, step = self._evaluations[self._next]
        if abs(sigma - known) > ROUNDING * known:
            raise LookupError(f"an evaluation at {sigma}, where {known} was expected")
        self._next += 1
        return step


def watchable(sampler):
    """Whether a sampler object of the host may be run once more, to see what it does."""
    function = getattr(sampler, "sampler_function", None)
    return (getattr(function, "__module__", None) or "").startswith(WATCHED)


def own_steps_of(sampler, patcher, schedule, channels):
    """The OwnSteps of a sampler; None where it works on copies, or where each run may go another way.

    sampler: one that is `watchable`; patcher: the MODEL that it will run; schedule: a list of its noise levels.
    """
    watch = _Watch(patcher, getattr(sampler.sampler_function, "__name__", "") in STALE_CALLBACK)
    with torch.random.fork_rng(devices=[]):
        noise = torch.randn(1, channels, WATCHED_SIDE, WATCHED_SIDE, generator=torch.Generator().manual_seed(0))
        arguments = {"model_options": {"transformer_options": {}}, "seed": 0}
        sampler.sample(
            watch, torch.tensor(schedule), arguments, watch.reached, noise, torch.zeros_like(noise), None, True
        )
    return OwnSteps([(sigma, step) for sigma, _, step in watch.evaluations]) if watch.own else None


class _Watch:
    """Stands in the guider's place: notes what a sampler asks, and answers at once."""

    def __init__(self, patcher, stale):
        self.model_patcher, self.cfg = patcher, 1.0
        self.inner_model = SimpleNamespace(model_sampling=patcher.get_model_object("model_sampling"))
        self.evaluations, self.own = [], True
        self._stale, self._since = stale, 0

    def __call__(self, x, sigma, model_options=None, seed=None):
        level = float(sigma.flatten()[0])
        self.evaluations.append([level, x, None])
        denoised = x / (1 + level**2)
        options = model_options or {}
        said = {"denoised": denoised, "cond_denoised": denoised, "uncond_denoised": denoised, "cond_scale": 1.0}
        said |= {"cond": x, "uncond": x, "input": x, "sigma": sigma, "model": self.inner_model}
        for function in options.get("sampler_post_cfg_function", ()):
            said["denoised"] = function({**said, "model_options": options})
        return said["denoised"]

    def reached(self, step, denoised, x, steps):
        """The sampler's callback: the evaluation of this latent since the last call was the step's own."""
        since = self.evaluations[self._since :]
        self._since = len(self.evaluations)
        found = since[-1:] if self._stale else [one for one in since if one[1] is x]
        self.own = self.own and bool(found)
        for one in found[-1:]:
            one[2] = step
