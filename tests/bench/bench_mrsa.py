"""Time of a sampling step with MRSA beside the same step without it, and the FLOPs of both beside the floor.

    python tests/bench/bench_mrsa.py --comfyui PATH
    python tests/bench/bench_mrsa.py --comfyui PATH --device cuda --kind sdxl --json sdxl.json

A step is one call of the UNet with both rows of CFG, run by the host's sampler on a UNet of random weights: speed does
not depend on them. "first": the picture that also runs the references through the UNet and puts their keys into the
bank; "further": the next picture, of another seed, which finds them there. Steps of both kinds and plain ones take
turns. Without further options: SD1.5 of half its width on the CPU, about three minutes on two cores.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

# Self-attentions that a choice of the node's widget names, in order of execution.
INDICES = {
    "sd15": {"published": range(10, 16), "fine": range(13, 16), "all up": range(7, 16)},
    "sdxl": {"published": range(44, 70), "fine": range(64, 70), "all up": range(34, 70)},
}
SIGMA = 5.0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comfyui", metavar="PATH", default=os.environ.get("COMFYUI_PATH"), help="ComfyUI's folder")
    parser.add_argument("--kind", choices=["sd15", "sdxl"], default="sd15")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--width", type=int, help="channels of the first level: 320 is the true UNet (cpu: 160)")
    parser.add_argument("--size", type=int, help="pixels of the picture's and the references' sides (512, sdxl: 1024)")
    parser.add_argument("--references", type=int, nargs="+", default=[1, 2, 3, 4], metavar="R")
    parser.add_argument("--coverage", type=float, default=0.224, help="share of a reference that its mask keeps")
    parser.add_argument("--blocks", choices=list(INDICES["sd15"]), default="published")
    parser.add_argument("--repeats", type=int, help="steps of each kind (cpu: 2, cuda: 20)")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], help="cpu: float32, cuda: float16")
    parser.add_argument(
        "--clock",
        choices=["wall", "cpu"],
        default="wall",
        help="cpu: processor seconds, which others on a shared machine disturb less (take one thread then)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="all times, for further work")
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    if options.width and options.width % 32:
        parser.error("the width must be a multiple of 32")
    if not options.comfyui:
        parser.error("name ComfyUI's folder with --comfyui")
    if on_gpu and options.clock == "cpu":
        parser.error("a GPU's time is on the wall clock")
    defaults = {
        "width": 320 if on_gpu else 160,
        "size": 1024 if options.kind == "sdxl" else 512,
        "repeats": 20 if on_gpu else 2,
        "dtype": "float16" if on_gpu else "float32",
    }
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def load_host(options):
    """ComfyUI and the pack, as the tests load them."""
    os.environ["COMFYUI_PATH"] = options.comfyui
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    import conftest  # noqa: F401


def random_model(options):
    """A MODEL of the host with random weights, on the device where it will run."""
    import torch
    from bench import flops

    device = torch.device(options.device)
    dtype = getattr(torch, options.dtype)
    model = flops.host_model(options.kind, options.width, dtype, device, load_device=device)
    for name, weight in model.model.diffusion_model.named_parameters():
        if weight.ndim > 1:
            weight.normal_(std=weight[0].numel() ** -0.5)
        else:
            weight.fill_(float(name.endswith("weight")))
    return model


class Stopwatch:
    """A DIFFUSION_MODEL wrapper that keeps the seconds of each call of the UNet, with all that hangs on it."""

    def __init__(self, device, clock):
        self.seconds = []
        self.device = device
        self.now = {"wall": time.perf_counter, "cpu": time.process_time}[clock]

    def __call__(self, executor, *args, **kwargs):
        self._wait()
        start = self.now()
        out = executor(*args, **kwargs)
        self._wait()
        self.seconds.append(self.now() - start)
        return out

    def _wait(self):
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()


def step_seconds(model, options, seed):
    """Seconds of one step of the MODEL."""
    import torch
    from bench import flops
    from tiny import sample

    watch = Stopwatch(options.device, options.clock)
    model = model.clone()
    model.add_wrapper_with_key("diffusion_model", "stopwatch", watch)
    text = flops.text(options.kind)
    latent = (1, 4, options.size // 8, options.size // 8)
    sample(model, text, text, latent=latent, seed=seed, sigmas=torch.tensor([SIGMA, 0.0]))
    (seconds,) = watch.seconds
    return seconds


def measured(options):
    """{number of references: {"plain", "first", "further": [seconds]}}, in turns."""
    from bench import flops

    model = random_model(options)
    mask = flops.mask_of(options.coverage)
    times = {references: {"plain": [], "first": [], "further": []} for references in options.references}
    turns = [(repeat, references) for repeat in range(1, options.repeats + 1) for references in options.references]
    # the first of all only warms up
    for repeat, references in [(0, options.references[0]), *turns]:
        patched = flops.patched(
            model, options.kind, options.size, references, mask,
            blocks=options.blocks, cache_mb=8192,
            # another noise on the references for each number of them and each turn: nothing is in the bank yet
            reference_seed=100 * repeat + references,
        )  # fmt: skip
        turn = {
            "plain": step_seconds(model, options, seed=0),
            "first": step_seconds(patched, options, seed=0),
            "further": step_seconds(patched, options, seed=1),
        }
        if repeat:
            for picture, seconds in turn.items():
                times[references][picture].append(seconds)
            told = ", ".join(f"{picture} {seconds:.3g} s" for picture, seconds in turn.items())
            sys.stderr.write(f"turn {repeat}, {references} references: {told}\n")
    return times


def counted(options):
    """{number of references: {"first", "further": (FLOPs, floor)}}, and the FLOPs of a plain step."""
    from bench import flops

    mask = flops.mask_of(options.coverage)
    cost = flops.costs(options.kind, options.size, INDICES[options.kind][options.blocks], options.width)
    hollow = flops.hollow_model(options.kind, options.width)
    counts = {}
    for references in options.references:
        patched = flops.patched(hollow, options.kind, options.size, references, mask, blocks=options.blocks, cache_mb=0)
        meter = flops.counted(patched, options.kind, options.size, [SIGMA])
        counts[references] = {
            "first": (meter.calls[0].flops, cost.floor(references, mask)),
            "further": (meter.forwards[0][-1].flops, cost.floor(references, mask, cached=True)),
        }
    return counts, 2 * cost.plain


def setting(options):
    """One line: on what this was measured."""
    import comfy.ldm.modules.attention as attention
    import comfyui_version
    import torch

    if options.device == "cuda":
        machine = torch.cuda.get_device_name()
    else:
        machine = f"{_cpu()}, {torch.get_num_threads()} of {os.cpu_count()} cores"
    unet = {"sd15": "SD1.5", "sdxl": "SDXL"}[options.kind]
    if options.width != 320:
        unet += f" at width {options.width}"
    return (
        f"{machine}; torch {torch.__version__}, ComfyUI {comfyui_version.__version__}, {options.dtype}, "
        f"{attention.optimized_attention.__name__}; {unet}, {options.size}x{options.size}, blocks {options.blocks}, "
        f"masks keep {options.coverage:.3g}; median of {options.repeats}, {options.clock} clock"
    )


def _cpu():
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def table(times, counts, plain_flops):
    """Markdown. Times are compared with the plain step of the same turn, FLOPs with those of a plain step."""
    plain = statistics.median(seconds for found in times.values() for seconds in found["plain"])
    lines = [
        "| references | picture | step, ms | time, x plain | FLOPs, x plain | floor, x plain | FLOPs / floor |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        f"| 0 | plain | {1000 * plain:.0f} | 1 | 1 ({plain_flops / 1e12:.3g} T) | 1 | 1 |",
    ]
    for references, found in times.items():
        for picture in ("first", "further"):
            ratios = [patched / alone for patched, alone in zip(found[picture], found["plain"], strict=True)]
            flops, floor = counts[references][picture]
            lines.append(
                f"| {references} | {picture} | {1000 * statistics.median(found[picture]):.0f} "
                f"| {statistics.median(ratios):.2f} | {flops / plain_flops:.2f} | {floor / plain_flops:.2f} "
                f"| {flops / floor:.3f} |"
            )
    return "\n".join(lines)


def main():
    options = arguments()
    load_host(options)
    import torch

    with torch.inference_mode():
        times = measured(options)
        counts, plain_flops = counted(options)
    print(f"{setting(options)}\n\n{table(times, counts, plain_flops)}")
    if options.json:
        result = {"setting": setting(options), "plain_flops": plain_flops, "seconds": times, "flops_and_floor": counts}
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
