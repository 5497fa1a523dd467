"""Steps of the host's sampler on a GPU: their time by the device's own clock, peak memory, launches and copies."""

import statistics
import time
from dataclasses import dataclass
from functools import partial
from itertools import count

import comfy.patcher_extension
import torch
from bench.flops import text
from support.models import sample
from support.outermost import put_outermost

# Noise levels of a run; the first step also does what is done once in a run, and is not counted.
SIGMAS = (5.0, 2.5, 1.25)
PREDICT = comfy.patcher_extension.WrappersMP.PREDICT_NOISE


@dataclass(frozen=True)
class Way:
    """One way to make a step. make(turn): the MODEL; turns have numbers, -1 to warm up."""

    make: object
    steps: int = len(SIGMAS)
    texts: tuple = None  # (positive, negative)


class Clock:
    """A wrapper around each evaluation of the sampler, with all that hangs on it."""

    def __init__(self, device, profiled=False):
        self.on_gpu, self.profiled = device.type == "cuda", profiled
        self._spans, self.events = [], None

    def __call__(self, executor, *args, **kwargs):
        if self.profiled:
            return self._profiled(partial(executor, *args, **kwargs))
        start = self._now()
        out = executor(*args, **kwargs)
        self._spans.append((start, self._now()))
        return out

    def _now(self):
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _profiled(self, step):
        activities = [getattr(torch.profiler.ProfilerActivity, "CUDA" if self.on_gpu else "CPU")]
        with torch.profiler.profile(activities=activities) as profiler:
            out = step()
            if self.on_gpu:
                torch.cuda.synchronize()
        # of the last step
        self.events = profiler.events()
        return out

    def milliseconds(self):
        """Of each step."""
        if not self.on_gpu:
            return [1000 * (end - start) for start, end in self._spans]
        torch.cuda.synchronize()
        return [start.elapsed_time(end) for start, end in self._spans]


class Bench:
    """A MODEL without anything, and how steps of it and of others made of it are measured."""

    def __init__(self, model, kind, size, device):
        self.model, self.kind, self.size, self.device = model, kind, size, device
        # of runs beside the turns
        self._others = count(10**6)

    def beside_plain(self, ways):
        """The same ways behind that of the MODEL without anything, "plain"."""
        return {"plain": Way(lambda turn: self.model), **ways}

    def in_turns(self, ways, turns, left):
        """{way: [ms of a step, by turns]}, until all turns are done or no time is left."""
        found = {name: [] for name in ways}
        # the first on a GPU only warms up
        for turn in range(-1 if self.device.type == "cuda" else 0, turns):
            for name, way in ways.items():
                steps = self.run(way, turn, Clock(self.device)).milliseconds()
                if turn >= 0:
                    found[name].append(statistics.median(steps[1:] or steps))
            if turn >= 0 and left() <= 0:
                break
        return found

    def peak(self, way):
        """MiB that a run takes at most; None on a CPU."""
        if self.device.type != "cuda":
            return None
        torch.cuda.reset_peak_memory_stats()
        self.run(way, next(self._others), Clock(self.device))
        return torch.cuda.max_memory_allocated() / 2**20

    def launches(self, way):
        """What the device was asked to do in a step: {"launches", "copies to the device", "MiB to the device"}.

        On a CPU, where nothing is launched, the calls of operators.
        """
        clock = Clock(self.device, profiled=True)
        self.run(way, next(self._others), clock)
        if not clock.on_gpu:
            return {"launches": sum(event.name.startswith("aten::") for event in clock.events)}
        events = [event for event in clock.events if event.device_type == torch.autograd.DeviceType.CUDA]
        if not events:
            raise RuntimeError("the profiler saw nothing on the card")
        copies = [event for event in events if "HtoD" in event.name]
        return {"launches": len(events), "copies to the device": len(copies)}

    def run(self, way, turn, clock):
        """One run of the host's sampler under a clock, which it returns."""
        model = way.make(turn).clone()
        put_outermost(model, PREDICT, clock)
        positive, negative = way.texts or (text(self.kind), text(self.kind))
        latent = (1, 4, self.size // 8, self.size // 8)
        sigmas = torch.tensor([*SIGMAS[: way.steps], 0.0])
        sample(model, positive, negative, latent=latent, seed=turn + 1, sigmas=sigmas)
        return clock
