"""What lives for one sampling run, and what is known of one UNet call in it."""

from dataclasses import dataclass

import torch

from .calls import schedule_of, sigma_of
from .rows import chunks_of
from .when import Moment, moment_of


class Run:
    """State of one sampling run; `close` drops it, however the run ends."""

    def __init__(self, guider=None, shape=None, masked=False, sampler=None):
        self.guider = guider
        # of the latents, and (height, width) of each; None outside a sampler
        self.shape = shape
        self.latent_size = shape[-2:] if shape else None
        # whether a noise mask keeps a part of the picture
        self.masked = masked
        # the host's name of the function that samples, "" of an unknown one
        self.sampler = getattr(getattr(sampler, "sampler_function", None), "__name__", "")
        self._states = {}
        self._schedule = None
        self._told = set()

    def state(self, name, make):
        """What the technique `name` keeps in this run, made by `make()` at the first call."""
        if name not in self._states:
            self._states[name] = make()
        return self._states[name]

    def once(self, message):
        """True for the first call with this message in this run."""
        new = message not in self._told
        self._told.add(message)
        return new

    def conds(self):
        """The guider's named conditionings, {name: [entry, ...]}; {} outside a sampler."""
        return getattr(self.guider, "conds", {})

    def schedule(self, options):
        """The sampler's sigmas as a list, None outside a sampler."""
        if self._schedule is None:
            self._schedule = schedule_of(options)
        return self._schedule

    def __deepcopy__(self, memo):
        # a pack that copies the options of a running sampler is still in this run
        return self

    def close(self):
        self.guider = None
        self._states.clear()


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
    schedule = run.schedule(options) or [float(sigma[0]), 0.0]
    moment = moment_of(float(sigma[0]), schedule)
    following = schedule[min(moment.step + 1, len(schedule) - 1)]
    base = getattr(run.guider, "inner_model", None) or base
    return Step(x, base, run, moment, max(1, len(schedule) - 1), following)


def call_of(run, base, unet, x, timesteps, context, y, options):
    """The call as one object; `base` is used where the run does not know its own model."""
    guider = run.guider
    return Call(
        unet=unet,
        x=x,
        timesteps=timesteps,
        context=context,
        y=y,
        base=getattr(guider, "inner_model", None) or base,
        run=run,
        moment=moment_of(sigma_of(options), run.schedule(options)),
        chunks=chunks_of(options, x.shape[0], run.conds()),
    )
