"""A folder with which gpu.py runs on a machine that has Python, torch and numpy, and no network.

    python tests/bench/make_gpu_kit.py            # writes gpu_kit/, out of the environment of tests/run.py
    python tests/bench/make_gpu_kit.py --comfyui PATH --python PATH --out FOLDER

It holds the files of ComfyUI that are imported, with all else of its `comfy` that a GPU may ask for, and the packages
of pure Python. All others stand empty (stand_ins.py) or are taken from the machine. Take the folder and this repository
there, then: python tests/bench/gpu.py --kit FOLDER
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parents[1]
sys.path.insert(0, str(BENCH.parent))
# Packages of pure Python that are used.
PACKAGES = ("einops", "tqdm", "packaging", "trampoline")
LIMIT = 64 << 20
# Beside code the host reads its own settings of text encoders and the like; tokenizers are not used.
DATA_LIMIT = 64 << 10


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comfyui", type=Path, default=os.environ.get("COMFYUI_PATH"), help="ComfyUI's folder")
    parser.add_argument("--python", type=Path, help="its interpreter")
    parser.add_argument("--cache", help="where tests/run.py keeps its environment")
    parser.add_argument("--out", type=Path, default=ROOT / "gpu_kit")
    return parser.parse_args()


def main():
    options = arguments()
    host, python = place_of(options)
    print(f"{options.out}: {made(Path(host), python, options.out) / 1e6:.1f} MB")


def place_of(options):
    """(the host's folder, the interpreter) as they are named, else those that tests/run.py makes."""
    import run
    from setup import environment, hosts

    if options.comfyui:
        return options.comfyui, options.python or sys.executable
    python, host = run.set_up(environment.cache_folder(options.cache), hosts.NEWEST)
    return host, python


def made(host, python, out):
    """Writes the kit; its bytes. Raises SystemExit where it grows too large."""
    shutil.rmtree(out, ignore_errors=True)
    imported = [Path(file) for file in _imported(host, python)]
    inside = [file.relative_to(host) for file in imported if file.is_relative_to(host)]
    # a GPU imports what a CPU does not
    inside += [file.relative_to(host) for file in (host / "comfy").rglob("*.py")]
    for folder in {file.parent for file in inside}:
        data = [file for file in (host / folder).glob("*.json") if file.stat().st_size < DATA_LIMIT]
        inside += [file.relative_to(host) for file in data]
    for file in dict.fromkeys(inside):
        _copied(host / file, out / "host" / file)
    for folder in _folders_of(python, PACKAGES):
        if folder.is_file():
            _copied(folder, out / "packages" / folder.name)
        for file in folder.rglob("*.py"):
            _copied(file, out / "packages" / file.relative_to(folder.parent))
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    if size > LIMIT:
        raise SystemExit(f"{out} is {size} bytes, more than {LIMIT}")
    return size


def _imported(host, python):
    """The files of all modules that gpu.py brings in."""
    command = [python, BENCH / "gpu.py", "--imports", "--comfyui", host]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def _folders_of(python, packages):
    """Where an interpreter has the packages that it has."""
    code = (
        "import importlib.util as u, json, sys; found = [u.find_spec(name) for name in sys.argv[1:]]; "
        "print(json.dumps([(s.submodule_search_locations or [s.origin])[0] for s in found if s]))"
    )
    command = [python, "-c", code, *packages]
    return [Path(one) for one in json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)]


def _copied(file, into):
    into.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, into)


if __name__ == "__main__":
    main()
