"""What lives for one sampling run, and what is known of one UNet call in it."""

from contextvars import copy_context
from dataclasses import dataclass
from functools import cached_property
from threading import RLock

import torch

from .calls import schedule_of, sigmas_of
from .messages import warn_user
from .progress import progress_of
from .rewritten import may_be_rewritten
from .rows import chunks_of
from .when import Moment, moment_of, whole_timestep

# Where the model that runs stands in the transformer options of its own call.
RUNNING = "personalization_model"


class Running:
    """The model of one call, as its options name it: a pack that copies those does not copy the model."""

    def __init__(self, base):
        self.base = base

    def __deepcopy__(self, memo):
        return self


class Run:
    """State of one sampling run; `close` drops it, however the run ends.

    The host may run the conditionings of a step on several devices at once: each has a model of its own and a thread
    of its own. So a call changes what is kept for its own model alone.
    """

    def __init__(self, guider=None, shape=None, masked=False, sampler=None, schedule=None, continued=None, fresh=True):
        self.guider = guider
        # of the latents, and (height, width) of each; None outside a sampler
        self.shape = shape
        self.latent_size = shape[-2:] if shape else None
        # whether a noise mask keeps a part of the picture
        self.masked = masked
        # the host's object that samples
        self.sampler = sampler
        # the latents that it goes on from without new noise, if it does; whether it begins with noise and nothing else
        self.continued, self.fresh = continued, fresh
        # the sampler's (b, C, h, w) of the evaluation that is going on; None before the first
        self.latents = None
        # {(name, the host's BaseModel or None): state}
        self._states = {}
        self._schedule, self._progress = schedule, None
        self._told = set()
        # {device: (a tensor of noise levels, the number in it)}: the last that were read
        self._levels = {}
        self._lock = RLock()
        # knows the node that runs; threads of the host begin without it
        self._context = copy_context()

    def state(self, name, make, base=None):
        """What the technique `name` keeps in this run, made by `make()` at the first call.

        base: the host's model that runs, for what one model (and so one thread) has for itself; None: the run's own.
        """
        with self._lock:
            if (name, base) not in self._states:
                self._states[name, base] = make()
            return self._states[name, base]

    def states(self, name):
        """What the technique `name` keeps for each of the models that have run."""
        with self._lock:
            return [state for (known, base), state in self._states.items() if known == name and base is not None]

    def tell(self, sentence):
        """Says a sentence on the node that samples, once in this run."""
        with self._lock:
            new = sentence not in self._told
            self._told.add(sentence)
        if new:
            self._context.copy().run(warn_user, sentence)

    def conds(self):
        """The guider's named conditionings, {name: [entry, ...]}; {} outside a sampler."""
        return getattr(self.guider, "conds", {})

    def level(self, sigmas):
        """The noise level that a tensor holds; of several calls with one tensor the first waits for its number."""
        known = self._levels.get(sigmas.device)
        if known is None or known[0] is not sigmas:
            known = self._levels[sigmas.device] = sigmas, float(sigmas[0])
        return known[1]

    def schedule(self, options):
        """The sampler's sigmas as a list, None outside a sampler."""
        if self._schedule is None:
            self._schedule = schedule_of(options)
        return self._schedule

    def progress(self, model_sampling):
        """Which part of a whole run this is: limits that are fractions of a run are read in it."""
        if self._progress is None and self._schedule:
            self._progress = progress_of(self._schedule, model_sampling, self.fresh)
        return self._progress or progress_of(None, model_sampling, self.fresh)

    def __deepcopy__(self, memo):
        # a pack that copies the options of a running sampler is still in this run
        return self

    def close(self):
        self.guider = self.sampler = self.continued = None
        self._states.clear()
        self._levels.clear()


@dataclass(frozen=True)
class Call:
    """One call of the UNet: what came in, and whose rows they are."""

    unet: object  # (x, timesteps, context, y, control, transformer_options) -> eps, free of all wrappers
    x: torch.Tensor
    timesteps: torch.Tensor
    context: torch.Tensor
    y: torch.Tensor | None
    base: object  # the host's BaseModel
    run: Run
    moment: Moment
    chunks: tuple
    # whether other packs may have changed what its rows read
    rewritten: bool = False

    @cached_property
    def whole_timestep(self):
        """The model's timestep, one whole number for all rows: where prompts that vary while sampling are read."""
        return whole_timestep(self.moment.sigma, self.base.model_sampling)


@dataclass(frozen=True)
class Step:
    """One evaluation that the sampler asks for, before it is split into calls of the UNet."""

    x: torch.Tensor  # the sampler's latents
    base: object  # the host's BaseModel
    run: Run
    moment: Moment
    steps: int  # of the whole run
    next_sigma: float  # where the step ends


def step_of(run, base, x, sigma, options):
    """The evaluation as one object; `base` is used where the run does not know its own model."""
    level = run.level(sigma)
    schedule = run.schedule(options) or [level, 0.0]
    moment = moment_of(level, schedule)
    following = schedule[min(moment.step + 1, len(schedule) - 1)]
    base = getattr(run.guider, "inner_model", None) or base
    return Step(x, base, run, moment, max(1, len(schedule) - 1), following)


def call_of(run, base, unet, x, timesteps, context, y, options):
    """The call as one object; `base` is used where neither the call nor the run knows its own model."""
    running = options[RUNNING].base if RUNNING in options else getattr(run.guider, "inner_model", None)
    return Call(
        unet=unet,
        x=x,
        timesteps=timesteps,
        context=context,
        y=y,
        base=running or base,
        run=run,
        moment=moment_of(run.level(sigmas_of(options)), run.schedule(options)),
        chunks=chunks_of(options, x.shape[0], run.conds()),
        rewritten=may_be_rewritten(options, getattr(run.guider, "model_options", {})),
    )
