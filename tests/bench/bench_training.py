"""What a training step costs: counted FLOPs beside what its networks must take, and bytes kept for its way back.

    python tests/bench/bench_training.py --comfyui PATH
    python tests/bench/bench_training.py --comfyui PATH --kind sdxl --write tests/bench/results/training_flops.md

Without the text encoder, whose cost is that of its prompts. Nothing is timed: UNets have their true shapes, no data.
"""

import sys
from pathlib import Path


def main():
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    import timing

    parser = timing.parser(__doc__)
    parser.add_argument("--methods", nargs="+", help="some of them; all if none is named")
    parser.add_argument("--write", type=Path, metavar="FILE", help="the table as Markdown")
    options = timing.parsed(parser)
    timing.load_host(options)
    table = "\n".join(_lines(options))
    print(table)
    if options.write:
        options.write.write_text(table + "\n", encoding="utf-8")


def _lines(options):
    import comfyui_version
    from bench.training_flops import METHODS, SIZES, floor_of, step_cost

    size = SIZES[options.kind]
    yield "# A training step: FLOPs and memory\n"
    yield f"`python tests/bench/bench_training.py --kind {options.kind}`; ComfyUI {comfyui_version.__version__}\n"
    yield f"{options.kind}, {size}x{size}, one picture (parts: two) and one of the class where a method has them\n"
    yield "| method | checkpoints | rows | TFLOP | networks alone | ratio | kept, GiB (float16) |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for method in options.methods or METHODS:
        for checkpoint in (False, True):
            cost = step_cost(options.kind, method, checkpoint)
            floor = floor_of(options.kind, method, checkpoint, cost.pictures)
            yield (
                f"| {method} | {'on' if checkpoint else 'off'} | {cost.pictures} | {cost.flops / 1e12:.2f} | "
                f"{floor / 1e12:.2f} | {cost.flops / floor:.3f} | {cost.kept / 2**30:.2f} |"
            )
    yield "\nThe networks alone: those of words, or of a LoRA of rank 4; larger LoRAs and maps of words come on top."


if __name__ == "__main__":
    main()
