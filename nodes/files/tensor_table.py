"""Safetensors files, read piece by piece into memory of our own: no map of the file, which others may cut."""

import json
import math
import os
import struct

import torch

from .disk_errors import UnreadableFileError

# The kinds of plain numbers, by their names in a file.
PLAIN_KINDS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
# The format's own limit is 100 MB; the largest table of a real file has a few.
_LONGEST_TABLE = 32 << 20


def from_table(file, name):
    """({name: tensor}, {metadata}) of an open safetensors file; UnreadableFileError if its table and its bytes do not
    agree.
    """
    size = os.fstat(file.fileno()).st_size
    (length,) = struct.unpack("<Q", file.read(8))
    start = 8 + length
    if start > size:
        raise UnreadableFileError(name, "is truncated")
    if length > _LONGEST_TABLE:
        raise UnreadableFileError(name, f"is damaged (its table of contents has {length >> 20} MB)")
    table = _table(file.read(length), name)
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise UnreadableFileError(name, "is damaged (its metadata is not text)")
    entries = sorted((_entry(name, key, entry) for key, entry in table.items()), key=lambda entry: entry[1])
    end = 0
    for key, (first, last), *_ in entries:
        if first != end:
            raise UnreadableFileError(name, f"is damaged ({key} is not where its table of contents says)")
        end = last
    if start + end != size:
        raise UnreadableFileError(
            name, "is truncated" if start + end > size else "is damaged (it ends after its tensors)"
        )
    return {key: _tensor(file, name, *rest) for key, *rest in entries}, metadata


def _table(text, name):
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnreadableFileError(name, "is damaged (its table of contents cannot be read)") from error
    if not isinstance(table, dict):
        raise UnreadableFileError(name, "is damaged (it has no table of contents)")
    return table


def _entry(name, key, entry):
    """(key, (first, last) byte, dtype, shape) of one line of the table."""
    entry = entry if isinstance(entry, dict) else {}
    numbers = entry.get("shape"), entry.get("data_offsets")
    whole = all(isinstance(some, list) and all(type(one) is int and one >= 0 for one in some) for some in numbers)
    if not whole or len(numbers[1]) != 2 or not isinstance(entry.get("dtype"), str):
        raise UnreadableFileError(name, f"is damaged (its table of contents says nothing clear of {key})")
    dtype = PLAIN_KINDS.get(entry["dtype"])
    if dtype is None:
        raise UnreadableFileError(
            name, f"contains {key} of the kind {entry['dtype']}, which is no plain number", "choose another file"
        )
    shape, (first, last) = numbers
    # a product of many sides may have more digits than any file has bytes
    if len(shape) > 64 or max(shape, default=0) >> 48 or math.prod(shape) * dtype.itemsize != last - first:
        raise UnreadableFileError(name, f"is damaged ({key} has another size than its shape says)")
    return key, (first, last), dtype, shape


def _tensor(file, name, span, dtype, shape):
    data = torch.empty(span[1] - span[0], dtype=torch.uint8)
    if len(data) and file.readinto(data.numpy()) != len(data):
        raise UnreadableFileError(name, "changed while it was read", "wait until it is complete and try again")
    return data.view(dtype).reshape(shape) if len(data) else torch.empty(shape, dtype=dtype)
