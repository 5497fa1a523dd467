"""Fetches the emoji set (MIT) with npm and keeps the things of the world as one small file of pictures.

python tests/pocket/fetch.py --cache output/pocket
"""

import argparse
import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image
from things import THINGS

PACKAGE, VERSION = "@lobehub/fluent-emoji-3d", "1.1.0"
SIDE = 128
# the alpha under which a render counts as empty
FAINT = 24


def archive(cache):
    """The package's archive in the cache folder; npm fetches it, and checks it, if it is not there."""
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / f"lobehub-fluent-emoji-3d-{VERSION}.tgz"
    if not path.is_file():
        npm = shutil.which("npm")
        if npm is None:
            raise SystemExit(
                f"npm is not installed, and it fetches {PACKAGE}; install Node.js, or put {path.name} there"
            )
        subprocess.run([npm, "pack", "--silent", f"{PACKAGE}@{VERSION}"], cwd=cache, check=True)
    return path


def square(render, side=SIDE):
    """A render cut to what it shows, centred on a transparent square of `side` pixels: uint8 (side, side, 4)."""
    render = render.convert("RGBA")
    box = render.getchannel("A").point(lambda alpha: 255 * (alpha > FAINT)).getbbox()
    render = render.crop(box)
    longest = max(render.size)
    canvas = Image.new("RGBa", (longest, longest))
    # premultiplied while it is resized, or the colour of empty pixels bleeds into the edge
    canvas.paste(render.convert("RGBa"), ((longest - render.width) // 2, (longest - render.height) // 2))
    return np.asarray(canvas.resize((side, side), Image.Resampling.LANCZOS).convert("RGBA"))


def gather(cache):
    """Path of things.npz in the cache folder: {word: uint8 (SIDE, SIDE, 4)}."""
    path = cache / "things.npz"
    if not path.is_file():
        with tarfile.open(archive(cache)) as tar:
            pictures = {}
            for word, code in THINGS.items():
                data = tar.extractfile(f"package/assets/{code}.webp").read()
                pictures[word] = square(Image.open(io.BytesIO(data)))
        np.savez_compressed(path, **pictures)
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("output/pocket"), help="folder for data and checkpoints")
    print(gather(parser.parse_args().cache))
