"""New files: bare names only, written whole or not at all, and nothing that belongs to others is overwritten."""

import os
import re
from pathlib import Path

import folder_paths
import safetensors.torch

from ..host.messages import input_error

# Endings of model files that are not written here.
OTHER_ENDINGS = (".pth", ".pt", ".pt2", ".bin", ".ckpt", ".pkl", ".sft")
# Names that some system or shell reads as more than a name.
_UNSAFE = re.compile(r'[/\\:*?"<>|\x00-\x1f]|\.\.|^\.|^\s*$')


def file_name_of(name, example):
    """The name of a safetensors file from what the user entered; ValueError for one that is more than a name, and for
    the ending of another kind of model file.
    """
    name = name.strip()
    if _UNSAFE.search(name) or name.lower().endswith(OTHER_ENDINGS):
        raise input_error(
            f'file_name is "{name}"; enter a bare name such as "{example}", without folders; a safetensors file is '
            "written"
        )
    return name if name.endswith(".safetensors") else f"{name}.safetensors"


def in_folder(kind, name):
    """The path of a new file in the first of the host's folders of a kind."""
    return Path(folder_paths.get_folder_paths(kind)[0]) / name


def write_new(files, kind):
    """Writes {path: bytes}, all or none; a file that stands there with the same content is left as it is.

    Raises ValueError rather than overwrite a file with another content.
    """
    written = []
    try:
        for path, data in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with path.open("xb") as file:
                    written.append(path)
                    file.write(data)
            except FileExistsError:
                if path.read_bytes() != data:
                    raise input_error(
                        f"{path.name} already exists in the {kind} folder with different contents; "
                        "enter another file_name"
                    ) from None
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise


def write_tensors(path, tensors, **metadata):
    """Writes a safetensors file beside and renames it, so that nobody ever reads half a file; one of ours is replaced.

    tensors: {name: tensor on any device}; metadata: text by name. Raises OSError where the disk does not take it.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        found = {key: t.detach().cpu().contiguous() for key, t in tensors.items()}
        safetensors.torch.save_file(found, part, metadata or None)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
