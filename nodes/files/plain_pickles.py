"""PyTorch files: only what torch.save writes for plain tensors, with nothing packed, and nothing in them is run."""

import io
import pickle
import re
import struct
import zipfile
import zlib

import torch

from .disk_errors import UnreadableFileError

# What zipfile and torch.load raise for damaged files (found by damaging many) and for other contents.
_DAMAGED = (
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
    ImportError,
    zipfile.BadZipFile,
    zlib.error,
)
# Bytes of the pickle in a zip, and steps of one outside: of real files the largest have a tenth of it.
_LONGEST_PICKLE = 4 << 20
# What torch.load allows beside plain tensors, and what may cost far more memory or time than the file has bytes.
_NOT_PLAIN = re.compile(
    rb"\n(bytearray|_rebuild_(?!(?:tensor|tensor_v2|tensor_v3|parameter|parameter_with_state|from_type_v2)\n)\w+)\n"
)
_NOT_PLAIN_ADVICE = "choose a file of plain weights"


def from_pickle(file, name):
    """The contents of an open PyTorch file, a dict as a rule; UnreadableFileError for what torch.save does not write.

    One dict inside, as trainers wrap theirs, is taken for the whole, as the host does.
    """
    return _unwrapped(plainly_loaded(file, name))


def plainly_loaded(file, name):
    """The same as it is, with what is around it."""
    file.seek(0)
    try:
        data = _unpacked(file, name) if file.read(2) == b"PK" else _bare(file, name)
        contents = torch.load(data, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _unsafe(name, error) from error
    except _DAMAGED as error:
        # an UnreadableFileError is a ValueError too
        if isinstance(error, UnreadableFileError):
            raise
        raise UnreadableFileError(
            name,
            "cannot be read as weights: it is truncated, damaged or another kind of file "
            f"({(str(error).splitlines() or [type(error).__name__])[0][:80]})",
        ) from error
    if isinstance(contents, torch.Tensor):
        raise UnreadableFileError(name, "cannot be read as weights: it contains a single tensor without a name")
    return contents


def _unpacked(file, name):
    """The records of a zip in a zip of our own, so that no two readers can find different ones in it."""
    out = io.BytesIO()
    try:
        with zipfile.ZipFile(file) as found, zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as ours:
            for record in checked_records(found, file, name):
                content = found.read(record)
                if record.filename.endswith("data.pkl"):
                    _check_kinds(content, name)
                ours.writestr(record.filename, content)
    except zipfile.BadZipFile as error:
        raise UnreadableFileError(name, "is truncated or damaged") from error
    out.seek(0)
    return out


def checked_records(found, file, name):
    """The records of an open zip file, as torch.save writes them; UnreadableFileError for others."""
    records, size = found.infolist(), file.seek(0, io.SEEK_END)
    if any(record.compress_type != zipfile.ZIP_STORED for record in records):
        raise UnreadableFileError(
            name, "contains packed records, which PyTorch never writes", "get a safetensors copy from its authors"
        )
    whole = all(record.file_size == record.compress_size for record in records)
    if not whole or sum(record.file_size for record in records) > size:
        raise UnreadableFileError(name, "is damaged (its records are larger than the file)")
    if len({record.filename for record in records}) != len(records):
        raise UnreadableFileError(name, "is damaged (two of its records have one name)")
    if any(record.file_size > _LONGEST_PICKLE for record in records if record.filename.endswith("data.pkl")):
        raise UnreadableFileError(name, "has a table of contents too long for weights", _NOT_PLAIN_ADVICE)
    return records


def _bare(file, name):
    file.seek(0)
    content = file.read()
    _check_kinds(content, name)
    return _Bounded(content)


def _check_kinds(content, name):
    found = _NOT_PLAIN.search(content)
    if found:
        kind = found[1].decode("ascii").removeprefix("_rebuild_")
        raise UnreadableFileError(name, f"contains {kind}, which is not a plain tensor", _NOT_PLAIN_ADVICE)


class _Bounded(io.BytesIO):
    """Bytes that are read in so many steps at most: a pickle takes one for each of its instructions."""

    def __init__(self, content):
        super().__init__(content)
        self.left = _LONGEST_PICKLE

    def read(self, size=-1):
        self.left -= 1
        if self.left < 0:
            raise EOFError("too many instructions for weights")
        return super().read(size)


def _unsafe(name, error):
    if "truncated" in str(error):
        return UnreadableFileError(name, "is truncated")
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    what = f"asks for {found[1]}" if found else "contains more than tensors, or is damaged"
    return UnreadableFileError(
        name, f"is not safe: it {what}; nothing in it was run", "get a safetensors copy from its authors"
    )


def _unwrapped(contents):
    if isinstance(contents, dict):
        if "state_dict" in contents:
            return contents["state_dict"]
        if len(contents) == 1 and isinstance(next(iter(contents.values())), dict):
            return next(iter(contents.values()))
    return contents
