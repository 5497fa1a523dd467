"""PyTorch files that hold objects beside tensors: their contents as dicts, lists, tensors, texts and numbers."""

import math
import pickle
import zipfile

import torch

from .disk_errors import UnreadableFileError
from .plain_pickles import checked_records, plainly_loaded
from .standin_unpickler import unpickled
from .standins import StandIn, StoredTensor

# Of the walk through what a file holds.
_OBJECTS, _DEPTH = 100_000, 64
# Values of one tensor: twice those of the largest table of embeddings.
_LARGEST = 1 << 27
_FORMATS = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
# What an unpickler raises for what it does not know or cannot do.
_FAULTS = (pickle.UnpicklingError, EOFError, AttributeError, TypeError, ValueError, LookupError, OverflowError)


def objects_of(file, name):
    """The contents of an open PyTorch file; UnreadableFileError for a damaged one, and for one that is too much.

    Objects that hold tensors as torch's modules do are {dotted name: tensor}; other objects are None. A bare pickle,
    as torch.save once wrote, may hold plain tensors alone.
    """
    file.seek(0)
    if file.read(2) != b"PK":
        return _Walk(name, None).plain(plainly_loaded(file, name))
    try:
        with zipfile.ZipFile(file) as found:
            records = {record.filename: record for record in checked_records(found, file, name)}
            (table,) = [path for path in records if path.endswith("data.pkl")]
            try:
                contents = unpickled(found.read(records[table]))
            except _FAULTS as error:
                raise UnreadableFileError(
                    name, f"cannot be read as weights: it is damaged, or {_said(error)}; nothing in it was run"
                ) from error
            root = table.removesuffix("data.pkl")
            return _Walk(name, lambda key: _bytes_of(found, records[f"{root}data/{key}"])).plain(contents)
    except zipfile.BadZipFile as error:
        raise UnreadableFileError(name, "is truncated or damaged") from error
    except (KeyError, ValueError) as error:
        if isinstance(error, UnreadableFileError):
            raise
        raise UnreadableFileError(name, "is damaged (a part that it names is missing)") from error


def _bytes_of(archive, record):
    """The bytes of a record in memory of our own, once."""
    data = bytearray(record.file_size)
    with archive.open(record) as part:
        left = memoryview(data)
        while len(left) and (count := part.readinto(left)):
            left = left[count:]
    return data


def _said(error):
    return (str(error).splitlines() or [type(error).__name__])[0][:80]


class _Walk:
    """One way through what a file holds, on which each object is visited once."""

    def __init__(self, name, read):
        """read: the bytes of the storage of a key."""
        self.name, self.read = name, read
        self.left, self.seen, self.storages = _OBJECTS, {}, {}

    def plain(self, value, depth=0):
        """A value as dicts, lists, tensors, texts, numbers and None."""
        if value is None or isinstance(value, str | int | float | bool):
            return value
        if id(value) in self.seen:
            # None: it holds itself
            return self.seen[id(value)][1]
        self.left -= 1
        if self.left < 0 or depth > _DEPTH:
            raise UnreadableFileError(self.name, "holds too much for a file of weights", "choose another file")
        # the value is kept, so that no other one gets its number
        self.seen[id(value)] = value, None
        found = self._converted(value, depth)
        self.seen[id(value)] = value, found
        return found

    def _converted(self, value, depth):
        if isinstance(value, StoredTensor):
            return self._tensor(value)
        if isinstance(value, torch.Tensor):
            return value if type(value) in (torch.Tensor, torch.nn.Parameter) else None
        if isinstance(value, dict):
            return {key: self.plain(one, depth + 1) for key, one in value.items() if isinstance(key, str | int)}
        if isinstance(value, list | tuple):
            return [self.plain(one, depth + 1) for one in value]
        if isinstance(value, StandIn):
            return self._object(value, depth)
        return None

    def _object(self, value, depth):
        state = value.state
        if isinstance(state, tuple) and len(state) == 2:
            # of a class with slots
            state = state[0]
        if not isinstance(state, dict):
            return None
        for held in ("_content", "_val"):
            if held in state:
                return self.plain(state[held], depth + 1)
        if "_modules" not in state and "_parameters" not in state:
            return self.plain(state, depth + 1)
        found = {}
        for own in ("_parameters", "_buffers"):
            several = self.plain(state.get(own), depth + 1)
            found |= {key: one for key, one in (several or {}).items() if isinstance(one, torch.Tensor)}
        for key, one in state.items():
            if isinstance(one, StoredTensor | torch.Tensor):
                found[key] = self.plain(one, depth + 1)
        for key, inner in (self.plain(state.get("_modules"), depth + 1) or {}).items():
            if isinstance(inner, dict):
                found |= {f"{key}.{name}": one for name, one in inner.items() if isinstance(one, torch.Tensor)}
        return found

    def _tensor(self, stored):
        storage, shape, stride = stored.storage, stored.shape, stored.stride
        whole = [stored.offset, *shape, *stride] if isinstance(shape, tuple) and isinstance(stride, tuple) else [None]
        fits = isinstance(storage, tuple) and storage[1] in _FORMATS and len(whole) == 1 + 2 * len(shape)
        if not fits or not all(type(one) is int and 0 <= one < 1 << 48 for one in whole):
            raise UnreadableFileError(self.name, "contains a tensor that is not plain", "choose a file of weights only")
        values = self._storage(*storage)
        last = stored.offset + sum((side - 1) * step for side, step in zip(shape, stride, strict=True))
        if 0 in shape:
            return values.new_empty(shape)
        # a table of few distinct rows may show each of them often
        if last >= len(values) or math.prod(shape) > _LARGEST:
            raise UnreadableFileError(self.name, "contains a tensor with more values than the file holds")
        return values.as_strided(shape, stride, stored.offset)

    def _storage(self, key, kind):
        if key not in self.storages:
            data = self.read(key)
            dtype = _FORMATS[kind]
            count = len(data) // dtype.itemsize
            self.storages[key] = torch.frombuffer(data, dtype=dtype, count=count) if count else torch.empty(0).to(dtype)
        return self.storages[key]
