"""Pickles that hold objects, read as data: what stands for a class does nothing, and steps and objects are counted.

Nothing is imported and nothing is run. Tensors and dicts, lists and numbers come out as such, an object as a StandIn of
its state.
"""

import io
import pickle

from .standins import Bag, Marker, Named, StandIn, StoredTensor

# Of real files the largest have some thousands of each.
_STEPS, _NAMES = 300_000, 500
_ATOMS = (str, int, float, bool)
# Opcodes that no torch.save writes, and that take memory, time or a registry of the process.
_LEFT_OUT = ["LONG", "BYTEARRAY8", "NEXT_BUFFER", "READONLY_BUFFER", "EXT1", "EXT2", "EXT4"]


def unpickled(content):
    """The object of a pickle (bytes) out of a torch.save archive; pickle.UnpicklingError for what is too much."""
    reader = _Unpickler(io.BytesIO(content))
    return reader.load()


class _Counting(dict):
    """The steps of an unpickler, counted."""

    def __init__(self, steps):
        super().__init__(steps)
        self.left = _STEPS

    def __getitem__(self, opcode):
        self.left -= 1
        if self.left < 0:
            raise pickle.UnpicklingError(f"it has more than {_STEPS} instructions")
        return super().__getitem__(opcode)


class _Unpickler(pickle._Unpickler):
    """The standard library's own in Python, whose steps can be counted and replaced."""

    dispatch = {
        code: step
        for code, step in pickle._Unpickler.dispatch.items()
        if code not in [getattr(pickle, name)[0] for name in _LEFT_OUT]
    }

    def __init__(self, file):
        super().__init__(file, encoding="utf-8", errors="replace")
        self._names = {}
        self.dispatch = _Counting(self.dispatch)

    def find_class(self, module, name):
        """What stands for module.name."""
        whole = f"{module}.{name}"
        if whole in _KNOWN:
            return _KNOWN[whole]
        if whole not in self._names:
            if len(self._names) >= _NAMES:
                raise pickle.UnpicklingError(f"it names more than {_NAMES} classes")
            self._names[whole] = _stand_in(whole)
        return self._names[whole]

    def persistent_load(self, pid):
        """(key, its format) of a storage."""
        if not (isinstance(pid, tuple) and len(pid) >= 3 and pid[0] == "storage" and isinstance(pid[2], str)):
            raise pickle.UnpicklingError("it refers to something that is no storage")
        return Marker((pid[2], getattr(pid[1], "name", "")))

    def load_empty_dict(self):
        self.append(Named())

    dispatch[pickle.EMPTY_DICT[0]] = load_empty_dict

    def load_dict(self):
        items, made = self.pop_mark(), Named()
        for key, value in zip(items[::2], items[1::2], strict=False):
            made[key] = value
        self.append(made)

    dispatch[pickle.DICT[0]] = load_dict

    def load_empty_set(self):
        self.append(Bag())

    dispatch[pickle.EMPTY_SET[0]] = load_empty_set

    def load_frozenset(self):
        self.append(Bag(self.pop_mark()))

    dispatch[pickle.FROZENSET[0]] = load_frozenset


def _stand_in(whole):
    if whole.startswith("torch.") and whole.count(".") == 1:
        # dtypes, storages, devices
        return Marker(whole) if whole[6:7].islower() or whole.endswith("Storage") else type("StandIn", (StandIn,), {})
    return type("StandIn", (StandIn,), {"__slots__": (), "name": whole})


def _given(*args):
    """A plain value, as it was given: no conversion, which may cost anything."""
    return args[0] if args and isinstance(args[0], (*_ATOMS, list, tuple)) else None


def _empty(*args):
    made = Named()
    pairs = args[-1] if args and isinstance(args[-1], list | tuple) else ()
    for pair in pairs:
        if isinstance(pair, list | tuple) and len(pair) == 2:
            made[pair[0]] = pair[1]
    return made


def _tensor(storage, offset=0, shape=(), stride=(), *others):
    return StoredTensor(getattr(storage, "name", None), offset, shape, stride)


def _parameter(data=None, *others):
    return data


_KNOWN = {
    "collections.OrderedDict": _empty,
    "collections.defaultdict": _empty,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.serialization._get_layout": _given,
    **{
        f"{module}.{name}": _given
        for module in ("builtins", "__builtin__")
        for name in ("set", "frozenset", "list", "tuple", "int", "long", "float", "complex", "str", "bool")
    },
    **{f"{module}.dict": _empty for module in ("builtins", "__builtin__")},
}
