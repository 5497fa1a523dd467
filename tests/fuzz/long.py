"""The fuzzer at any length.

    python tests/fuzz/long.py --files 3000 --seed 7
    python tests/fuzz/long.py --widgets 1000
    python tests/fuzz/long.py --files 3000 --only 1234      # one of those files again, with its whole error

Needs COMFYUI_PATH and that ComfyUI's Python, as pytest does. Says what came that should not, and ends with an error if
anything did. The suite runs a short one of each (test_fuzz.py).
"""

import argparse
import collections
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=0, metavar="COUNT")
    parser.add_argument("--widgets", type=int, default=0, metavar="COUNT")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, metavar="NUMBER", help="go on from there")
    parser.add_argument("--only", type=int, metavar="NUMBER")
    options = parser.parse_args()
    # loads the host and the pack
    import conftest  # noqa: F401

    from fuzz.files import Files, places

    found = collections.Counter()
    with torch.inference_mode():
        if options.files:
            with places() as base:
                found += tried(Files(base), "file", options.files, options)
        if options.widgets:
            from fuzz.widgets import Widgets

            with places() as base:
                found += tried(Widgets(base), "widgets", options.widgets, options)
    for fault, count in found.most_common():
        print(f"{count:5} {fault}")
    return bool(found)


def tried(subject, what, count, options):
    found, start = collections.Counter(), time.monotonic()
    for number in [options.only] if options.only is not None else range(options.first, count):
        kind, faults = subject.faults(options.seed, number)
        if number % 100 == 99:
            print(f"{number + 1} {what}: {sum(found.values())} faults in {time.monotonic() - start:.0f} s", flush=True)
        for fault in faults:
            print(f"{what} {number} ({kind}): {fault}", flush=True)
            found[f"{kind}: {fault[:100]}"] += 1
    print(f"{count} {what}: {sum(found.values())} faults in {time.monotonic() - start:.0f} s")
    return found


if __name__ == "__main__":
    sys.exit(main())
