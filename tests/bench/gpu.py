"""All that is to be known of a GPU, by one command without a network, in eight minutes at most.

    python tests/bench/gpu.py --kit gpu_kit       # Python with torch and numpy, and the folder of make_gpu_kit.py
    python tests/bench/gpu.py                     # the same with gpu_kit/ beside this repository, or in COMFYUI_PATH
    python tests/bench/gpu.py --rehearse          # every line once, at tiny sizes on the CPU; figures mean nothing

Steps of every technique beside plain ones in turns (device time, peak memory, launches, copies), on SD1.5 and SDXL of
true shape with random weights; what the bank's copies take; recorded cases in float32 and float16. The most important
comes first, and what is there is written after each case: stop it whenever you like. Writes output/gpu.json and
output/gpu.md.
"""

import argparse
import json
import os
import sys
import threading
import time
import traceback
from functools import partial
from pathlib import Path
from types import SimpleNamespace

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
# Everything ends after so many seconds, whatever is running.
LONGEST = 470
# The longest that one case may take turns.
CASE = 25
SIZES = {"sdxl": 1024, "sd15": 512}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kit", type=Path, help="a folder of make_gpu_kit.py")
    parser.add_argument("--comfyui", type=Path, default=os.environ.get("COMFYUI_PATH"), help="ComfyUI's folder")
    parser.add_argument("--rehearse", action="store_true", help="tiny, on the CPU")
    parser.add_argument("--seconds", type=float, default=LONGEST)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--only", nargs="+", help="sections whose names hold one of these words")
    parser.add_argument("--out", type=Path, default=ROOT / "output" / "gpu")
    parser.add_argument("--imports", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.kit is None and options.comfyui is None:
        options.kit = ROOT / "gpu_kit"
    if options.kit and not (options.kit / "host").is_dir():
        parser.error(f"there is no kit in {options.kit}: make one with make_gpu_kit.py, or name ComfyUI with --comfyui")
    return options


def load(options):
    """ComfyUI and the pack, as the tests load them; the names of what is not really there."""
    host = options.kit / "host" if options.kit else options.comfyui
    # behind what the machine has
    sys.path += [str(options.kit / "packages")] if options.kit else []
    sys.path.insert(0, str(TESTS))
    os.environ["COMFYUI_PATH"] = str(host)
    if options.rehearse or options.imports:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    from bench import stand_ins

    stood_in = stand_ins.put_in_place()
    import conftest  # noqa: F401

    return stood_in


def sections(rehearsed):
    """[(what it is called, "sdxl" or "sd15" or None, function of (report, bench of that kind or None, options))]."""
    from bench import gpu_ways as ways

    def first(kind):
        return [
            (f"{kind}: MRSA", kind, partial(compared, ways.references, [3])),
            (f"{kind}: the bank's copies", kind, copies),
            (f"{kind}: MIP-Adapter", kind, partial(compared, ways.image_prompts, [3])),
            (f"{kind}: Concept Conductor", kind, partial(compared, ways.concepts, [2])),
            (f"{kind}: Concept Conductor, guided", kind, partial(compared, ways.guided_concepts, [2])),
        ]

    def rest(kind):
        return [
            (f"{kind}: MRSA", kind, partial(compared, ways.references, [1, 2, 4])),
            (f"{kind}: MIP-Adapter", kind, partial(compared, ways.image_prompts, [1, 2, 4])),
            (f"{kind}: Concept Conductor", kind, partial(compared, ways.concepts, [1, 3, 4])),
            (f"{kind}: reference techniques", kind, partial(compared, ways.relatives, [1])),
            (f"{kind}: identity", kind, partial(compared, ways.people, [2])),
            (f"{kind}: Concept Conductor, guided", kind, partial(compared, ways.guided_concepts, [1, 3, 4])),
        ]

    alone = [("recorded cases", None, recorded), ("Golden Noise", None, golden_noise)]
    if rehearsed:
        return [*first("sd15"), *rest("sd15")[3:5], *alone]
    return [*first("sdxl"), alone[0], *first("sd15"), *rest("sdxl"), *rest("sd15"), alone[1]]


def compared(ways, counts, report, section, bench, options):
    """A technique given so much, beside the plain step."""
    if options.rehearse and section.endswith("identity"):
        report.add(section, says="runs at the true width alone: not rehearsed")
        return
    for count in counts:
        if report.left <= 0:
            return
        end = report.left - CASE
        found = bench.beside_plain(ways(bench, count))
        times = bench.in_turns(found, options.turns, lambda end=end: min(report.left, report.left - end))
        for name, spent in times.items():
            ratios = [mine / plain for mine, plain in zip(spent, times["plain"], strict=True)]
            row = {"case": count, "way": name, "ms": median(spent), "x plain": median(ratios)}
            if name != "plain" or count == counts[0]:
                row |= {"peak MiB": bench.peak(found[name]), **launches(bench, found[name])}
            report.add(section, **row)


def launches(bench, way):
    """What Bench.launches says; why not, where the machine's profiler fails."""
    try:
        return bench.launches(way)
    except RuntimeError as error:
        return {"says": f"not counted: {error}"[:300]}


def copies(report, section, bench, options):
    """What a step of three references is: into main memory and back, as the bank does it and tensor by tensor."""
    from bench.gpu_copies import measured

    for row in measured(bench.kind, bench.device, bench.size, options.turns):
        report.add(section, **row)


def recorded(report, section, bench, options):
    """Errors against the published code."""
    import torch
    from bench.gpu_golden import LIMITS, cases

    for dtype in (torch.float32, *(() if options.rehearse else (torch.float16,))):
        for name, errors in cases()[:: 6 if options.rehearse else 1]:
            if report.left <= 0:
                return
            found = dict(zip(("error of the prompt", "error of the negative"), errors(dtype), strict=True))
            says = "" if max(found.values()) < LIMITS[dtype] else "TOO LARGE"
            report.add(section, case=name, dtype=str(dtype)[6:], **found, limit=LIMITS[dtype], says=says)


def golden_noise(report, section, bench, options):
    """The published network, part by part."""
    from bench.bench_npnet import measured

    given = SimpleNamespace(device="cpu" if options.rehearse else "cuda", batch=[1], repeats=options.turns)
    for part, seconds in measured(given)[1].items():
        report.add(section, way=part, ms=1000 * median(seconds))


def median(values):
    """Of some numbers."""
    import statistics

    return statistics.median(values)


def benches(options):
    """bench(kind): the Bench of a MODEL with random weights, made when it is first asked for."""
    from functools import cache

    import torch
    from bench.gpu_steps import Bench
    from timing import random_model

    @cache
    def bench(kind):
        tiny = {"device": "cpu", "width": 32, "dtype": "float32"}
        true = {"device": "cuda", "width": 320, "dtype": "float16"}
        given = SimpleNamespace(kind=kind, **(tiny if options.rehearse else true))
        model = random_model(given)
        return Bench(model, kind, 64 if options.rehearse else SIZES[kind], torch.device(given.device))

    return bench


def facts(options, stood_in):
    """On what this was measured."""
    import comfy.ldm.modules.attention as attention
    import comfyui_version
    import torch

    card = "the CPU, tiny: a rehearsal, no figure means anything" if options.rehearse else torch.cuda.get_device_name()
    return {
        "measured on": card,
        "torch": torch.__version__,
        "ComfyUI": comfyui_version.__version__,
        "attention": attention.optimized_attention.__name__,
        "stand-ins": ", ".join(stood_in) or "none",
    }


def ended_in_time(report):
    """Whatever is running then, the process ends with what has been found."""

    def end():
        report.facts["ended"] = "no time was left for more"
        report.write()
        os._exit(0)

    timer = threading.Timer(report.left, end)
    timer.daemon = True
    timer.start()


def main():
    options, started = arguments(), time.monotonic()
    # also where loading hangs
    end = threading.Timer(options.seconds, os._exit, [0])
    end.daemon = True
    end.start()
    stood_in = load(options)
    import torch

    if options.imports:
        sections(False)
        import comfyui_version  # noqa: F401
        from bench import gpu_copies, gpu_golden  # noqa: F401

        files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
        print(json.dumps(sorted({str(Path(file).resolve()) for file in files if file})))
        return
    if not options.rehearse and not torch.cuda.is_available():
        sys.exit("torch finds no GPU here; --rehearse tries everything at tiny sizes on the CPU")
    from bench.gpu_report import Report

    # float32 means float32: what is recorded was computed so
    torch.backends.cudnn.allow_tf32 = False
    report = Report(options.out, started + options.seconds - 5, facts(options, stood_in))
    ended_in_time(report)
    bench = benches(options)
    with torch.inference_mode():
        for section, kind, work in sections(options.rehearse):
            if report.left <= 0 or options.only and not any(word in section for word in options.only):
                continue
            sys.stderr.write(f"{section}, {report.left:.0f} s are left\n")
            try:
                work(report, section, bench(kind) if kind else None, options)
            except Exception as error:  # the other sections are worth having all the same
                traceback.print_exc()
                report.add(section, says=f"{type(error).__name__}: {error}"[:300])
    report.facts.setdefault("ended", "all is done")
    report.write()
    print(options.out.with_suffix(".md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
