"""Tensors from a file of any origin, the one reader: all in memory, nothing run, each fault said in one sentence."""

import hashlib
import itertools
import os
from pathlib import Path

import torch

from ..host.messages import input_error
from .disk_errors import UnreadableFileError, open_to_read, unreadable
from .object_files import objects_of
from .plain_pickles import from_pickle
from .tensor_table import PLAIN_KINDS, from_table

PICKLES = (".pth", ".pt", ".pt2", ".bin", ".ckpt", ".pkl")
# Dicts in dicts, their entries, letters of a name: of real files the most have a tenth of it.
_DEPTH, _ENTRIES, _LETTERS = 16, 100_000, 1000
# Bytes of all tensors for each byte of the file: more than one, since two names may share one storage.
_SHARED = 8
# Values that are looked at together, and bytes that are hashed together.
_PIECE = 1 << 22


def read_tensors(path):
    """({name: tensor}, {metadata}) of a safetensors or weights-only pickle file, on the CPU, in memory of our own.

    Names in nested dicts are joined by dots. Raises ValueError for a file that is cut off or is no model file, that
    holds anything but plain tensors, and for values that are not numbers.
    """
    try:
        return tensors_in(path)
    except UnreadableFileError as error:
        raise input_error(str(error)) from error


def tensors_in(path):
    """As `read_tensors`, for files that we can do without: an UnreadableFileError, which is shown nowhere, says why."""
    contents, metadata, size = _read(path, from_pickle)
    return _checked(contents, path.name, size), metadata


def read_contents(path):
    """What a file holds, nested as it is: dicts, lists, tensors, texts, numbers, and None for all else.

    Of pickles that hold objects too, of which nothing is run: see object_files.py. Raises ValueError as `read_tensors`
    does, but for what is no tensor.
    """
    try:
        contents, _, _ = _read(path, objects_of)
        _check_numbers(contents, path.name, "", set())
    except UnreadableFileError as error:
        raise input_error(str(error)) from error
    return contents


def _read(path, from_objects):
    try:
        with open_to_read(path) as file:
            before = os.fstat(file.fileno())
            contents, metadata = _contents(file, path, from_objects)
            after = os.fstat(file.fileno())
    except OSError as error:
        raise unreadable(path, error) from error
    except MemoryError as error:
        raise UnreadableFileError(path.name, "does not fit into memory", "choose a smaller file") from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise UnreadableFileError(path.name, "changed while it was read", "wait until it is complete and try again")
    return contents, metadata, before.st_size


def sha256_of(path):
    """The SHA-256 of a file's bytes, in hexadecimal digits; ValueError if it cannot be read."""
    state = hashlib.sha256()
    try:
        with open_to_read(path) as file:
            while piece := file.read(_PIECE):
                state.update(piece)
    except UnreadableFileError as error:
        raise input_error(str(error)) from error
    except OSError as error:
        raise input_error(str(unreadable(path, error))) from error
    return state.hexdigest()


def _contents(file, path, from_objects):
    head = file.read(64)
    file.seek(0)
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not head:
        raise UnreadableFileError(path.name, "is empty")
    # a length, whose upper bytes are none, and then a table; the first byte may be any, "<" too
    if head[6:9] == b"\0\0{":
        return from_table(file, path.name)
    if start.startswith(b"<"):
        raise UnreadableFileError(path.name, "is a web page, not the model itself")
    if start.startswith(b"version https://git-lfs"):
        raise UnreadableFileError(path.name, "is a Git LFS pointer, not the model itself")
    if not head.startswith((b"PK", b"\x80")):
        raise UnreadableFileError(path.name, "is neither a safetensors nor a PyTorch file")
    if path.suffix.lower() not in PICKLES:
        advice = f"rename it to {Path(path.name).stem}.pth"
        raise UnreadableFileError(path.name, "is a PyTorch file with another extension", advice)
    return from_objects(file, path.name), {}


def _checked(contents, name, size):
    tensors, total = {}, 0
    for key, tensor in _flat(contents, name, itertools.count()):
        tensors[key] = tensor
        total += tensor.numel() * tensor.element_size()
        if total > _SHARED * size:
            raise UnreadableFileError(name, "unfolds to far more than the file holds", "choose another file")
    if not tensors:
        raise UnreadableFileError(name, "contains no weights")
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not _is_finite(tensor):
            raise UnreadableFileError(name, f"contains NaN or infinite values at {key}")
    return tensors


def _flat(contents, name, count, prefix="", depth=0):
    """(name, tensor) of nested or flat contents; `count` counts what is seen, since one dict may stand in many."""
    if not isinstance(contents, dict):
        raise UnreadableFileError(name, f"contains a {type(contents).__name__} instead of named weights")
    if depth > _DEPTH:
        raise UnreadableFileError(name, f"has more than {_DEPTH} levels of names in names", "choose another file")
    for key, value in contents.items():
        if next(count) >= _ENTRIES:
            raise UnreadableFileError(name, "unfolds to far more than the file holds", "choose another file")
        if not isinstance(key, str) or len(prefix) + len(key) > _LETTERS:
            raise UnreadableFileError(
                name, "contains a weight whose name is too long or no text", "choose another file"
            )
        if isinstance(value, dict):
            yield from _flat(value, name, count, f"{prefix}{key}.", depth + 1)
        elif isinstance(value, torch.Tensor) and _is_plain(value):
            if value.numel() * value.element_size() > value.untyped_storage().nbytes():
                raise UnreadableFileError(name, f"contains {prefix}{key}, which has more values than the file holds")
            yield f"{prefix}{key}", value
        else:
            raise UnreadableFileError(
                name, f"contains {prefix}{key}, which is not a plain tensor", "choose a file of weights only"
            )


def _check_numbers(contents, name, prefix, seen):
    if isinstance(contents, torch.Tensor):
        if contents.is_floating_point() and not _is_finite(_distinct(contents)):
            raise UnreadableFileError(name, f"contains NaN or infinite values at {prefix}")
    elif isinstance(contents, dict | list) and id(contents) not in seen:
        seen.add(id(contents))
        for key, value in contents.items() if isinstance(contents, dict) else enumerate(contents):
            _check_numbers(value, name, f"{prefix}.{key}" if prefix else str(key), seen)


def _distinct(tensor):
    """A tensor's values, or all that lie with them where it shows some of them more than once."""
    if tensor.is_contiguous():
        return tensor
    return tensor.as_strided((tensor.untyped_storage().nbytes() // tensor.element_size(),), (1,), 0)


def _is_plain(tensor):
    strided = tensor.layout == torch.strided and not tensor.is_nested and tensor.device.type == "cpu"
    return strided and tensor.dtype in PLAIN_KINDS.values()


def _is_finite(tensor):
    flat = tensor.detach().reshape(-1)
    return all(bool(torch.isfinite(flat[i : i + _PIECE].float()).all()) for i in range(0, len(flat), _PIECE))
