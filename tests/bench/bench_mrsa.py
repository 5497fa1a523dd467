"""Time of a sampling step with MRSA beside the same step without it, and the FLOPs of both beside the floor.

    python tests/bench/bench_mrsa.py --comfyui PATH
    python tests/bench/bench_mrsa.py --comfyui PATH --device cuda --kind sdxl --json sdxl.json

A step is one call of the UNet with both rows of CFG, run by the host's sampler on a UNet of random weights: speed does
not depend on them. "first": the picture that also runs the references through the UNet and puts their keys into the
bank; "further": the next picture, of another seed, which finds them there. Steps of both kinds and plain ones take
turns. Without further options: SD1.5 of half its width on the CPU, about three minutes on two cores.
"""

import json
import statistics
import sys

import timing
from timing import SIGMA, random_model, step_seconds

# Self-attentions that a choice of the node's widget names, in order of execution.
INDICES = {
    "sd15": {"published": range(10, 16), "fine": range(13, 16), "all up": range(7, 16)},
    "sdxl": {"published": range(44, 70), "fine": range(64, 70), "all up": range(34, 70)},
}


def arguments():
    parser = timing.parser(__doc__)
    parser.add_argument("--references", type=int, nargs="+", default=[1, 2, 3, 4], metavar="R")
    parser.add_argument("--coverage", type=float, default=0.224, help="share of a reference that its mask keeps")
    parser.add_argument("--blocks", choices=list(INDICES["sd15"]), default="published")
    return timing.parsed(parser)


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
    timing.load_host(options)
    import torch

    with torch.inference_mode():
        times = measured(options)
        counts, plain_flops = counted(options)
    setting = timing.setting(options, f", blocks {options.blocks}, masks keep {options.coverage:.3g}")
    print(f"{setting}\n\n{table(times, counts, plain_flops)}")
    if options.json:
        result = {"setting": setting, "plain_flops": plain_flops, "seconds": times, "flops_and_floor": counts}
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
