"""Tensors from a file of any origin: nothing in it is run, and what is wrong with it is said in one sentence."""

import pickle
import re
import struct
import zipfile

import safetensors
import torch
from comfy.utils import load_torch_file

from ..host.messages import input_error

PICKLES = (".pth", ".pt", ".pt2", ".bin", ".ckpt", ".pkl")
# What torch.load and the host's unwrapping raise for damaged files (found by damaging many) and for other contents.
DAMAGED = (
    EOFError,
    struct.error,
    RuntimeError,
    AttributeError,
    TypeError,
    ValueError,
    AssertionError,
    OverflowError,
    LookupError,
    MemoryError,
    OSError,
)
AGAIN = "download the file again"


def read_tensors(path):
    """({name: tensor}, {metadata}) of a safetensors or weights-only pickle file, on the CPU.

    Names in nested dicts are joined by dots. Raises ValueError for a file that is cut off or is no model file, that
    holds anything but tensors, and for values that are not numbers.
    """
    with path.open("rb") as file:
        head = file.read(64)
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not head:
        raise input_error(f"{path.name} is empty; {AGAIN}")
    if start.startswith(b"<"):
        raise input_error(f"{path.name} is a web page, not the model itself; {AGAIN}")
    if start.startswith(b"version https://git-lfs"):
        raise input_error(f"{path.name} is a Git LFS pointer, not the model itself; {AGAIN}")
    if head[8:9] == b"{":
        contents, metadata = _from_safetensors(path, struct.unpack("<Q", head[:8])[0])
    else:
        _check_pickle(path, head)
        contents, metadata = _from_pickle(path), {}
    return _checked(contents, path.name), metadata


def _from_safetensors(path, header):
    if header > path.stat().st_size:
        raise input_error(f"{path.name} is truncated; {AGAIN}")
    try:
        with safetensors.safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except safetensors.SafetensorError as error:
        reason = "truncated" if "incomplete" in str(error).lower() else f"damaged ({_one_line(error)})"
        raise input_error(f"{path.name} is {reason}; {AGAIN}") from error


def _check_pickle(path, head):
    if head.startswith(b"PK"):
        if not _is_whole_zip(path):
            raise input_error(f"{path.name} is truncated or damaged; {AGAIN}")
    elif not head.startswith(b"\x80"):
        raise input_error(f"{path.name} is neither a safetensors nor a PyTorch file; {AGAIN}")
    if path.suffix.lower() not in PICKLES:
        raise input_error(f"{path.name} is a PyTorch file with another extension; rename it to {path.stem}.pth")


def _is_whole_zip(path):
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        # so it answers to some of the damaged ones
        return False


def _from_pickle(path):
    try:
        # the host reads them with weights_only, so that nothing in them can run
        return load_torch_file(str(path), safe_load=True)
    except DAMAGED as error:
        raise input_error(
            f"{path.name} cannot be read as weights: it is truncated, damaged or another kind of file "
            f"({_one_line(error)}); {AGAIN}"
        ) from error
    except pickle.UnpicklingError as error:
        if "truncated" in str(error):
            raise input_error(f"{path.name} is truncated; {AGAIN}") from error
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"asks for {found[1]}" if found else "contains more than tensors, or is damaged"
        raise input_error(
            f"{path.name} is not safe: it {what}; nothing in it was run. Get a safetensors copy from its authors"
        ) from error


def _checked(contents, name):
    tensors = dict(_flat(contents, name))
    if not tensors:
        raise input_error(f"{name} contains no weights; {AGAIN}")
    for key, tensor in tensors.items():
        if not torch.isfinite(tensor.float()).all():
            raise input_error(f"{name} contains NaN or infinite values at {key}; {AGAIN}")
    return tensors


def _flat(contents, name, prefix=""):
    """(name, tensor) of nested or flat contents."""
    if not isinstance(contents, dict):
        raise input_error(f"{name} contains a {type(contents).__name__} instead of named weights; {AGAIN}")
    for key, value in contents.items():
        if isinstance(value, dict):
            yield from _flat(value, name, f"{prefix}{key}.")
        elif isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_quantized:
            yield f"{prefix}{key}", value
        else:
            raise input_error(
                f"{name} contains {prefix}{key}, which is not a plain tensor; choose a file of weights only"
            )


def _one_line(error):
    return (str(error).splitlines() or [type(error).__name__])[0][:80]
