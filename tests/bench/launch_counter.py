"""Counts what a GPU feels of some work: operators, bytes, numbers that are waited for, copies between devices."""

from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Operators that launch nothing although they return a tensor of their own.
SET_ASIDE = ("empty", "new_empty", "empty_strided", "new_empty_strided", "empty_like", "_unsafe_view", "lift_fresh")
# Reads of a number, the second where operators are not taken apart (in inference mode).
NUMBERS = ("_local_scalar_dense", "item")


@dataclass
class Launches:
    """What was counted: operators, bytes that they read and write, numbers read back, copies between devices."""

    operators: int = 0
    read: int = 0
    written: int = 0
    numbers: int = 0
    # (bytes, whether it goes to the card, whether it waits) of each
    copies: list = field(default_factory=list)
    by_name: dict = field(default_factory=dict)

    @property
    def moved(self):
        """Bytes read and written."""
        return self.read + self.written

    @property
    def to_card(self):
        return [(size, waits) for size, onto, waits in self.copies if onto]


class Counter(TorchDispatchMode):
    """Counts while it is entered: `found` is a Launches. card: the kind of device of a card, None without one."""

    def __init__(self, card=None):
        super().__init__()
        self.card = card
        self.found = Launches()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = function._schema.name.removeprefix("aten::")
        given = _tensors((args, kwargs))
        places = [t.device for t in given]
        out = function(*args, **kwargs)
        made = _tensors(out)
        if name in NUMBERS:
            # a number in main memory is no wait, where there is a card
            self.found.numbers += self.card is None or given[0].device.type == self.card
        elif name in ("_to_copy", "copy_") and made and made[0].device != places[-1]:
            waits = not (kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2]))
            self.found.copies.append((made[0].nbytes, made[0].device.type != "cpu", waits))
        elif name.startswith("index") and len(set(places)) > 1:
            # numbers of rows that lie in main memory
            self.found.copies += [(t.nbytes, True, True) for t in given if t.device.type == "cpu"]
        if not _only_looks(function, name):
            self._note(function, name, given, made)
        return out

    def _note(self, function, name, given, made):
        found = self.found
        found.operators += 1
        found.by_name[name] = found.by_name.get(name, 0) + 1
        # what is only written to is not read
        over = name in ("copy_", "fill_", "zero_") or "out" in function._overloadname
        overwritten = {id(t) for t in made} if over else ()
        found.read += sum(t.nbytes for t in given if id(t) not in overwritten)
        found.written += sum(t.nbytes for t in made)


def _tensors(nested):
    return [leaf for leaf in tree_leaves(nested) if isinstance(leaf, torch.Tensor)]


def _only_looks(function, name):
    returns = function._schema.returns
    views = bool(returns) and all(one.alias_info is not None and not one.alias_info.is_write for one in returns)
    return views or name in SET_ASIDE or name in NUMBERS or not returns


@contextmanager
def plainly():
    """As a GPU computes: torch's attention, and operators that show what they are made of."""
    import comfy.ldm.modules.attention as attention

    names = ("optimized_attention", "optimized_attention_masked")
    standing = {name: getattr(attention, name) for name in names}
    for name in names:
        setattr(attention, name, attention.attention_pytorch)
    try:
        with torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        for name, function in standing.items():
            setattr(attention, name, function)
