"""Keys and values of references, kept in main memory across sampling runs."""

import weakref
from dataclasses import dataclass


@dataclass
class _Held:
    entry: dict
    size: int
    run: object


class Bank:
    """Entries {block: (k, v)} by content key, within a budget of bytes.

    Room is made by dropping whole runs, the least recently used first: a run reads its entries step by step, so that
    dropping single entries would always drop the one that is needed next. A run that alone fills the budget keeps what
    it stored first.
    """

    def __init__(self):
        # insertion order is order of use
        self._held = {}
        self.bytes = 0

    def get(self, key, run, device):
        """The entry on a device, or None; `run` is whatever identifies the sampling run that asks."""
        held = self._held.pop(key, None)
        if held is None:
            return None
        held.run = run
        self._held[key] = held
        return _moved(held.entry, device)

    def put(self, key, entry, run, budget):
        """Keeps the entry in main memory if the budget (bytes) allows. Its tensors must not be written to any more."""
        size = sum(t.numel() * t.element_size() for pair in entry.values() for t in pair)
        self._make_room(budget - size, run)
        if key not in self._held and self.bytes + size <= budget:
            self._held[key] = _Held(_moved(entry, "cpu"), size, run)
            self.bytes += size

    def _make_room(self, limit, run):
        while self.bytes > limit:
            oldest = next((held.run for held in self._held.values() if held.run is not run), None)
            if oldest is None:
                return
            for key in [key for key, held in self._held.items() if held.run is oldest]:
                self.bytes -= self._held.pop(key).size


_BANKS = weakref.WeakKeyDictionary()


def bank_of(base):
    """The bank of one loaded model; it goes when the model goes."""
    return _BANKS.setdefault(base, Bank())


def _moved(entry, device):
    # tensors without data (FLOPs are counted on those) have nothing to move
    return {block: tuple(t if t.is_meta else t.to(device) for t in pair) for block, pair in entry.items()}
