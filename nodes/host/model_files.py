"""Weight files in the host's model folders: which there are, where they lie, and reading them safely."""

import os
import pickle
from pathlib import Path

import comfy.utils
import folder_paths
import torch

from .say import refusal

# What people get instead of a file of weights, by its first bytes.
NOT_WEIGHTS = {
    b"<!DOCTYPE": "it is a web page",
    b"<html": "it is a web page",
    b"version https://git-lfs": "it is a Git LFS pointer, not the file",
}


def model_files(kind, *also):
    """Names of the weight files of a kind, as the host lists them.

    They lie in models/<kind>, in models/<also>, and where extra_model_paths.yaml says; the host learns the kind here.
    """
    known, extensions = folder_paths.folder_names_and_paths.get(kind, ([], set()))
    others = [path for name in also for path in folder_paths.folder_names_and_paths.get(name, ([],))[0]]
    ours = [os.path.join(folder_paths.models_dir, name) for name in (kind, *also)]  # noqa: PTH118 (the host keeps text)
    paths = list(dict.fromkeys([*known, *ours, *others]))
    # a kind that extra_model_paths.yaml made has no endings, so the host would list every file
    if paths != known or not extensions:
        endings = extensions or set(folder_paths.supported_pt_extensions)
        folder_paths.folder_names_and_paths[kind] = (paths, endings)
        folder_paths.filename_list_cache.pop(kind, None)
    return folder_paths.get_filename_list(kind)


def or_none_found(names, kind):
    """The entries of a dropdown; where there are none, one that says where to put files."""
    return list(names) or [f"none found: put files into models/{kind}"]


def not_found(what, name, names, kind):
    """The sentence for a choice that this machine lacks."""
    folders = ", ".join(folder_paths.get_folder_paths(kind))
    there = f"found: {', '.join(names)}" if names else "nothing is there yet"
    return f'{what} "{name}" is not in {folders} ({there}); put it there, or choose another'


def path_of(kind, name):
    """The path of a listed file."""
    return Path(folder_paths.get_full_path_or_raise(kind, name))


def changed(paths):
    """A value that changes when one of the files does."""
    return [[str(path), path.stat().st_mtime_ns, path.stat().st_size] for path in paths]


def read_weights(path):
    """({name: tensor}, {metadata}) of a file of plain weights; nothing in it is run.

    Raises ValueError for a damaged file, for one that holds more than tensors, and for values that are not numbers.
    """
    try:
        weights, metadata = comfy.utils.load_torch_file(str(path), safe_load=True, return_metadata=True)
    except pickle.UnpicklingError as error:
        why = _instead(path) or "it is damaged, or a pickle that holds more than weights; nothing in it was run"
        raise refusal(f"{path.name} is refused: {why}; get the file anew, as safetensors") from error
    except Exception as error:  # each reader has exceptions of its own for a damaged file
        why = _instead(path) or "it is damaged or incomplete"
        raise refusal(f"{path.name} cannot be read: {why}; get the file anew") from error
    if not isinstance(weights, dict) or not weights:
        raise refusal(f"{path.name} holds no weights; get the file anew")
    for name, tensor in weights.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise refusal(f"{path.name} holds {name}, which is no tensor: it is no file of plain weights")
        if not torch.isfinite(tensor.float()).all():
            raise refusal(f"{path.name} holds values that are not numbers at {name}; get the file anew")
    return weights, metadata or {}


def _instead(path):
    with path.open("rb") as file:
        start = file.read(64).lstrip()
    return next((what for sign, what in NOT_WEIGHTS.items() if start.lower().startswith(sign.lower())), None)
