"""Time of the noise prompt network of Golden Noise, part by part, at the size of the published weights.

    python tests/bench/bench_npnet.py
    python tests/bench/bench_npnet.py --batch 1 4 --threads 1 --repeats 9 --json npnet.json

The weights are random: speed does not depend on them. Needs no ComfyUI. Aim: the whole network in at most 0.6 s on one
CPU core at batch 1.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path

GOAL_SECONDS = 0.6


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="+", default=[1], metavar="B")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE", help="all times, for further work")
    return parser.parse_args()


def seconds_of(work, device):
    """Seconds of one call, and what it returned."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    result = work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def measured(options):
    """{batch: {part: [seconds]}} of the parts of the network in turn, and of the whole."""
    import torch
    from support.npnets import recipe_prompt, recipe_weights

    from pack.kernels.noise_prompt import golden_noise, singular_vectors, spectrum
    from pack.kernels.noise_prompt.network import residual_branch, text_branch

    weights = {key: t.to(options.device) for key, t in recipe_weights().items()}
    prompt = recipe_prompt().to(options.device)
    found = {}
    for batch in options.batch:
        noise = torch.randn(batch, 4, 128, 128).to(options.device)
        times = found[batch] = {"text": [], "SVD": [], "spectrum": [], "residual (Swin)": [], "whole": []}
        for repeat in range(options.repeats + 1):
            turn = {}
            turn["text"], text = seconds_of(lambda n=noise: text_branch(n, prompt, weights), options.device)
            turn["SVD"], vectors = seconds_of(lambda n=noise: singular_vectors(n), options.device)
            turn["spectrum"], _ = seconds_of(lambda v=vectors: spectrum(*v, weights), options.device)
            turn["residual (Swin)"], _ = seconds_of(
                lambda n=noise, t=text: residual_branch(n + t, weights), options.device
            )
            turn["whole"], _ = seconds_of(lambda n=noise: golden_noise(n, prompt, weights), options.device)
            # the first turn only warms up
            if repeat:
                for part, seconds in turn.items():
                    times[part].append(seconds)
    return found


def setting(options):
    """One line: on what this was measured."""
    import torch

    machine = torch.cuda.get_device_name() if options.device == "cuda" else f"{_cpu()}, {options.threads} threads"
    return f"{machine}; torch {torch.__version__}, float32; median of {options.repeats}"


def _cpu():
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def table(found):
    """Markdown."""
    lines = ["| batch | part | ms | share |", "| --- | --- | --- | --- |"]
    for batch, times in found.items():
        whole = statistics.median(times["whole"])
        for part, seconds in times.items():
            median = statistics.median(seconds)
            lines.append(f"| {batch} | {part} | {1000 * median:.0f} | {100 * median / whole:.0f} % |")
    if 1 in found:
        whole = statistics.median(found[1]["whole"])
        lines.append(f"\nwhole network at batch 1: {whole:.3f} s, aim {GOAL_SECONDS} s on one CPU core")
    return "\n".join(lines)


def main():
    options = arguments()
    sys.path.insert(0, str(Path(__file__).parent.parent))
    import conftest  # noqa: F401
    import torch

    torch.set_num_threads(options.threads)
    with torch.inference_mode():
        found = measured(options)
    print(f"{setting(options)}\n\n{table(found)}")
    if options.json:
        options.json.write_text(json.dumps({"setting": setting(options), "seconds": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
