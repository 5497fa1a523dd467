"""Tensors from a file of any origin: nothing in it is run, and what is wrong with it is said in one sentence."""

import pickle
import re
import struct
import zipfile
from pathlib import Path

import safetensors
import safetensors.torch
from comfy.utils import load_torch_file

from .say import refusal

PICKLES = (".pth", ".pt", ".pt2", ".bin", ".ckpt", ".pkl")


def tensors_of(path):
    """The contents of a safetensors or weights-only pickle file, on the CPU; pickles may nest dicts.

    Raises ValueError for a file that is cut off, is no model file, or holds more than tensors.
    """
    path = Path(path)
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        raise refusal(f"{path.name} is empty; download it again")
    if head.lstrip().startswith((b"<", b"version https://git-lfs")):
        raise refusal(f"{path.name} is a web page or a pointer, not the model itself; download the file again")
    if head[8:9] == b"{":
        return _from_safetensors(path, struct.unpack("<Q", head[:8])[0])
    if head.startswith(b"PK"):
        if not zipfile.is_zipfile(path):
            raise refusal(f"{path.name} is cut off; download it again")
    elif not head.startswith(b"\x80"):
        raise refusal(f"{path.name} is neither a safetensors file nor a file of torch.save; download it again")
    if path.suffix.lower() not in PICKLES:
        raise refusal(f"{path.name} is a file of torch.save under another name; rename it to {path.stem}.pth")
    return _from_pickle(path)


def _from_safetensors(path, header):
    if header > path.stat().st_size:
        raise refusal(f"{path.name} is cut off; download it again")
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        reason = "cut off" if "incomplete" in str(error).lower() else f"damaged ({_one_line(error)})"
        raise refusal(f"{path.name} is {reason}; download it again") from error


def _from_pickle(path):
    try:
        # the host reads them with weights_only, so that nothing in them can run
        return load_torch_file(str(path), safe_load=True)
    except (EOFError, struct.error, RuntimeError, AttributeError, TypeError, LookupError) as error:
        raise refusal(
            f"{path.name} cannot be read as weights: it is cut off, damaged or something else ({_one_line(error)}); "
            "download it again"
        ) from error
    except pickle.UnpicklingError as error:
        if "truncated" in str(error):
            raise refusal(f"{path.name} is cut off; download it again") from error
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"asks for {found[1]}" if found else "holds more than tensors"
        raise refusal(f"{path.name} is not safe: it {what}; nothing in it was run. Get it from its makers") from error


def _one_line(error):
    return (str(error).splitlines() or [type(error).__name__])[0][:80]
