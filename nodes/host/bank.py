"""Keys and values of references, kept in main memory across sampling runs."""

import weakref
from dataclasses import dataclass
from threading import Lock

import torch

from .flat_entries import Entry, FlatEntry, on_device


@dataclass
class _Held:
    entry: FlatEntry
    size: int
    run: object


class Bank:
    """Entries {block: (tensors and what belongs to them)} by content key, within a budget of bytes.

    Room is made by dropping whole runs, the least recently used first: a run reads its entries step by step, so that
    dropping single entries would always drop the one that is needed next. A run that alone fills the budget keeps what
    it stored first. Several threads may use it at once: the host's, one for each device.
    """

    def __init__(self):
        # insertion order is order of use
        self._held = {}
        self._lock = Lock()
        self.bytes = 0

    def get(self, key, run, device):
        """The entry on a device, or None; `run` is whatever identifies the sampling run that asks."""
        return self.fetch([key], run, device).get(key)

    def fetch(self, keys, run, device, most=1):
        """{key: its Entry on a device} of those keys that are there. Tensors may still be on their way then.

        most: how many copies they may take together, if there are no more entries than that.
        """
        found = {}
        with self._lock:
            for key in keys:
                held = self._held.pop(key, None)
                if held is None:
                    continue
                held.run = run
                self._held[key] = held
                found[key] = held.entry
        return on_device(found, torch.device(device), most) if found else {}

    def put(self, key, entry, run, budget):
        """Keeps the entry in main memory if the budget (bytes) allows. Its tensors must not be written to any more."""
        size = Entry(entry).size
        with self._lock:
            if not self._fits(key, size, run, budget):
                return
        # the way from a card takes time, in which others may ask
        moved = FlatEntry(entry)
        with self._lock:
            if self._fits(key, size, run, budget):
                self._held[key] = _Held(moved, size, run)
                self.bytes += size

    def holds(self, key):
        """Whether the entry of a key is there; asking is no use of it."""
        with self._lock:
            return key in self._held

    def shrink(self, budget):
        """Drops whole runs, the least recently used first, until the budget (bytes) holds the rest."""
        with self._lock:
            self._make_room(budget, None)

    def _fits(self, key, size, run, budget):
        self._make_room(budget - size, run)
        return key not in self._held and self.bytes + size <= budget

    def _make_room(self, limit, run):
        while self.bytes > limit:
            oldest = next((held.run for held in self._held.values() if held.run is not run), None)
            if oldest is None:
                return
            for key in [key for key, held in self._held.items() if held.run is oldest]:
                self.bytes -= self._held.pop(key).size


_BANKS = weakref.WeakKeyDictionary()
# {what the host calls a model with its copies on other devices: their bank}
_OF_COPIES = weakref.WeakValueDictionary()
_LOCK = Lock()


def bank_of(base):
    """The bank of one loaded model and of its copies on other devices; it goes when they go."""
    with _LOCK:
        bank = _BANKS.get(base)
        if bank is None:
            origin = getattr(base.current_patcher, "clone_base_uuid", None)
            bank = _BANKS[base] = _OF_COPIES.get(origin) or Bank()
            if origin is not None:
                _OF_COPIES[origin] = bank
        return bank


def shrink_bank(base, budgets):
    """Makes the bank of a loaded model, if there is one, fit the largest of the budgets (bytes; None: no budget) of
    those that keep something in it, which may have been lowered.
    """
    with _LOCK:
        bank = _BANKS.get(base)
    wanted = [budget for budget in budgets if budget is not None]
    if bank is not None and wanted:
        bank.shrink(max(wanted))
