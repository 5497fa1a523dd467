"""The virtual environment that the tests run in: made once in a cache folder, redone where a pin has changed."""

import os
import shutil
import sys
from pathlib import Path

from setup.steps import SetupError, done, last_lines, mark, run, say, step

TORCH = ["torch==2.12.0", "torchvision==0.27.0", "torchaudio==2.11.0"]
TOOLS = ["pytest==9.2.0", "pytest-xdist==3.8.0"]
# What reads faces, and what the tests compare with: as they are, since one of them asks for an older torch. Python 3.10
# has no such versions, and goes without these tests.
FACES = [
    "insightface==2.1",
    "onnxruntime==1.32.0",
    "onnx==1.23.2",
    "opencv-python-headless==5.0.0.93",
    "scikit-image==0.26.0",
    "facenet-pytorch==2.6.0",
    "flatbuffers==25.12.19",
    "imageio==2.38.1",
    "lazy-loader==0.6",
    "ml_dtypes==0.6.0",
    "protobuf==7.36.2",
    "tifffile==2026.3.3",
]
# Torch for Linux brings the CUDA libraries along, with a graphics card or without.
TORCH_GB = 10 if sys.platform == "linux" else 4


def cache_folder(chosen=None):
    """The chosen folder, else the one the environment names, else the usual place for caches."""
    folder = chosen or os.environ.get("PERSONALIZATION_CACHE")
    if not folder:
        caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(caches) / "comfyui-personalization"
    return Path(folder).expanduser().absolute()


def virtual_environment(cache):
    """Its python. One environment for each Python version, so that changing yours breaks nothing."""
    folder = cache / "venv-{}.{}".format(*sys.version_info)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if done(folder / "made.stamp", sys.version) and python.exists() and not interrupted(folder).exists():
        return python
    with step("Making a virtual environment"):
        shutil.rmtree(folder, ignore_errors=True)
        with log_file(cache, "venv").open("wb") as log:
            code = run([sys.executable, "-m", "venv", folder], log=log)
        if code:
            say(last_lines(log.name, 15))
            raise SetupError("This Python cannot make a virtual environment; on Debian: apt install python3-venv")
        mark(folder / "made.stamp", sys.version)
    return python


def install(cache, python, name, packages, requirements=None, needed_gb=2):
    """pip install, unless the stamp of this name says that just this was installed."""
    stamp = python.parent.parent / f"{name}.stamp"
    wanted = [packages, requirements.read_text(encoding="utf-8") if requirements else ""]
    if done(stamp, wanted):
        return
    check_space(cache, needed_gb)
    with step(f"Installing {name}"):
        # pip puts things back when it fails, but not when it is killed: then the whole folder is made anew.
        interrupted(python.parent.parent).touch()
        code = pip(cache, python, name, "install", *packages, *(["-r", requirements] if requirements else []))
        interrupted(python.parent.parent).unlink()
        if code:
            raise SetupError(explain(cache, name))
        mark(stamp, wanted)


def interrupted(folder):
    return folder / "pip-at-work"


def check_space(cache, needed):
    free = shutil.disk_usage(cache).free / 1e9
    if free < needed:
        raise SetupError(
            f"Only {free:.1f} GB are free in {cache}, and about {needed} GB are needed; "
            "make room or choose another folder with --cache."
        )


def pip(cache, python, name, *arguments):
    quiet = ["--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
    command = [python, "-m", "pip", arguments[0], *quiet, *arguments[1:]]
    with log_file(cache, name).open("wb") as log:
        return run(command, log=log)


def explain(cache, name):
    """One sentence on why pip failed, after the end of its log."""
    path = log_file(cache, name)
    text = path.read_text(encoding="utf-8", errors="replace")
    say(last_lines(path, 15))
    if "DO NOT MATCH THE HASHES" in text:
        reason = "the file on the package index is not the one that was pinned"
    elif "NewConnectionError" in text or "Failed to establish" in text or "timed out" in text or "SSLError" in text:
        reason = "the package index could not be reached; is there a network, or a proxy to set?"
    elif "No space left" in text:
        reason = "the disk is full"
    else:
        reason = "pip failed"
    return f"{name}: {reason} (log: {path})"


def log_file(cache, name):
    folder = cache / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.log"
