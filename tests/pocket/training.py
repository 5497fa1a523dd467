"""What all trainings share: how long, on what, the learning rate, the running average, checkpoints, the bar.

Under `torchrun --nproc-per-node 2` two processes share each step, each with its own batch: on a CPU that is faster than
two threads in one.
"""

import argparse
import functools
import math
import os
import time
from pathlib import Path

import torch
import torch.distributed as dist
from attention import learning
from tqdm import tqdm

# seconds between checkpoints; share of a run over which the rate falls to zero
SAVE_EVERY, COOL_DOWN = 120, 0.4
# the shorter side of matrices that Muon takes
SMALLEST = 64


def options(description, **defaults):
    """The command line of a training; `defaults` are those of steps, minutes, batch, rate."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path("output/pocket"), help="folder for data and checkpoints")
    parser.add_argument("--minutes", type=float, default=30, help="how long this run lasts")
    parser.add_argument("--steps", type=int, help="how many steps this run has, instead of minutes")
    parser.add_argument("--batch", type=int, help="pictures per step (default: by device)")
    parser.add_argument("--rate", type=float, default=defaults.pop("rate"), help="the highest learning rate")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="CPU threads (default: what PyTorch takes)")
    parser.add_argument("--measure", type=int, default=1000, help="fresh pictures to measure the result on")
    parser.add_argument(
        "--start-from", dest="start", type=Path, help="weights to begin with where there is no checkpoint to go on from"
    )
    parser.add_argument("--fresh", action="store_true", help="do not go on from the checkpoint in the cache")
    return parser


def prepare(args, batches):
    """Fills in what depends on the device; `batches` = (on a CPU, on CUDA)."""
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.batch is None:
        args.batch = batches[args.device.startswith("cuda")]
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    args.cache.mkdir(parents=True, exist_ok=True)
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
    return args


def worker():
    """(which of the processes that share the steps this is, how many there are)"""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def summed(tensors):
    """Adds up tensors over all processes, in place."""
    if worker()[1] > 1:
        total = torch.cat([t.flatten() for t in tensors])
        dist.all_reduce(total)
        for t, part in zip(tensors, total.split([t.numel() for t in tensors]), strict=True):
            t.copy_(part.view_as(t))


def half(device):
    """Autocast to bfloat16 where the device has instructions for it: a CPU that has none takes ten times as long."""
    kind = torch.device(device).type
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=kind != "cpu" or _cpu_has_bfloat16())


@functools.cache
def _cpu_has_bfloat16():
    return any(there for name, there in torch.cpu.get_capabilities().items() if "bf16" in name)


class Muon(torch.optim.Muon):
    """PyTorch's Muon, which takes matrices only, for convolutions too: each is stepped as the matrix (out, rest).

    Processes that share steps share this work as well: of n, each steps every n-th matrix and gives it to the others.
    """

    def __init__(self, weights, rate, weight_decay):
        self.weights = weights
        matrices = [p.detach().flatten(1).clone() for p in weights]
        super().__init__(matrices, lr=rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")

    @property
    def matrices(self):
        return self.param_groups[0]["params"]

    @torch.no_grad()
    def step(self):
        for i, (matrix, weight) in enumerate(zip(self.matrices, self.weights, strict=True)):
            if self._mine(i):
                matrix.copy_(weight.flatten(1))
                matrix.grad = weight.grad.flatten(1)
            else:
                matrix.zero_()
                matrix.grad = None
        super().step()
        summed(self.matrices)
        for matrix, weight in zip(self.matrices, self.weights, strict=True):
            weight.copy_(matrix.view(weight.shape))

    def gather(self):
        """Gives all processes what each remembers of its matrices' gradients, for a checkpoint."""
        nothing = map(torch.zeros_like, self.matrices)
        memories = [
            self.state[matrix].get("momentum_buffer", zero) if self._mine(i) else zero
            for i, (matrix, zero) in enumerate(zip(self.matrices, nothing, strict=True))
        ]
        summed(memories)
        for matrix, memory in zip(self.matrices, memories, strict=True):
            self.state[matrix]["momentum_buffer"] = memory

    def _mine(self, i):
        first, count = worker()
        return i % count == first


def optimizers_of(network, rate, weight_decay, muon):
    """AdamW for all weights; with `muon`, Muon for the large matrices inside, where it learns in fewer steps."""

    def inside(name, p):
        return muon and p.ndim > 1 and min(p.flatten(1).shape) >= SMALLEST and "embedding" not in name

    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    large = [p for name, p in named if inside(name, p)]
    rest = [p for name, p in named if not inside(name, p)]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
    ]
    made = [torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.99), fused=True)]
    return [*made, Muon(large, rate, weight_decay)] if large else made


class Training:
    """A network under training: `network` learns, `average` is its running average, `steps` counts over all runs."""

    def __init__(self, name, network, args, decay=0.999, weight_decay=0.01, muon=False):
        self.args, self.decay = args, decay
        self.path = args.cache / f"{name}.checkpoint"
        layout = torch.channels_last if args.device.startswith("cuda") else torch.contiguous_format
        self.network = network.to(args.device, memory_format=layout)
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.optimizers = optimizers_of(self.network, args.rate, weight_decay, muon)
        self.steps, self.seconds, self.notes = 0, 0.0, {}
        self.worker, self.workers = worker()
        if self.path.is_file() and not args.fresh:
            self._load()

    def run(self, loss_of):
        """Trains; loss_of(number) gives (loss, {name: value to show}), of another number each time.

        Ctrl-C saves, where no other process waits for this one.
        """
        begin = time.monotonic()
        self.network.train()
        try:
            self._run(loss_of, begin)
        except KeyboardInterrupt:
            if self.workers > 1:
                raise
            print(f"stopped after {self.steps} steps; the same command goes on from here")
        self.save(time.monotonic() - begin)
        self.network.load_state_dict(self.average)
        self.network.eval()

    def _run(self, loss_of, begin):
        args, first, saved, shown = self.args, self.steps, begin, {}
        total, unit = (args.steps, "step") if args.steps else (round(args.minutes * 60), "s")
        bar = tqdm(total=total, unit=unit, smoothing=0, disable=self.worker > 0)
        while True:
            now = time.monotonic()
            done = (self.steps - first) / args.steps if args.steps else (now - begin) / (args.minutes * 60)
            done, save = self._shared(torch.tensor([done, float(now - saved > SAVE_EVERY)])).tolist()
            if done >= 1:
                break
            with learning(args.device):
                loss, values = loss_of(self.steps * self.workers + self.worker)
            self._step(loss, done)
            for name, value in {"loss": loss.detach(), **values}.items():
                # stays on the device: reading it each step would wait for the device
                shown[name] = value if name not in shown else shown[name].lerp(value, 0.02)
            if self.steps % 20 == 0:
                bar.n = min(bar.total, self.steps - first if args.steps else round(now - begin))
                self.notes = {name: round(float(value), 4) for name, value in shown.items()}
                bar.set_postfix(step=self.steps, **self.notes)
            if save:
                self.save(now - begin)
                saved = now
        bar.n = bar.total
        bar.close()

    def _step(self, loss, done):
        warm = min(1.0, (self.steps + 1) / 200)
        cool = 0.5 + 0.5 * math.cos(math.pi * max(0.0, (done - 1 + COOL_DOWN) / COOL_DOWN))
        for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
            group["lr"] = self.args.rate * warm * max(cool, 0.01)
        self.network.zero_grad(set_to_none=True)
        loss.backward()
        self._share_gradients()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.steps += 1
        keep = min(self.decay, (1 + self.steps) / (10 + self.steps))
        state = self.network.state_dict()
        with torch.no_grad():
            torch._foreach_lerp_([self.average[k] for k in state], list(state.values()), 1 - keep)

    def _shared(self, values):
        """The mean of these values over all processes."""
        summed([values])
        return values / self.workers

    def _share_gradients(self):
        if self.workers > 1:
            given = [p.grad for p in self.network.parameters() if p.grad is not None]
            summed(given)
            torch._foreach_div_(given, self.workers)

    def save(self, seconds):
        """Writes the checkpoint whole or not at all; all processes call it at the same step."""
        for optimizer in self.optimizers:
            if isinstance(optimizer, Muon):
                optimizer.gather()
        if self.worker:
            return
        state = {
            "network": self.network.state_dict(),
            "average": self.average,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "steps": self.steps,
            "seconds": self.seconds + seconds,
            "notes": self.notes,
        }
        part = self.path.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.path)

    def _load(self):
        state = torch.load(self.path, map_location=self.args.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average = state["average"]
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self.steps, self.seconds = state["steps"], state["seconds"]
