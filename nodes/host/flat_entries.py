"""Entries {block: (tensors and what belongs to them)}: one piece of main memory for each, and their way to a device."""

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import comfy.model_management as mm
import torch

from .copy_lanes import lane_of

# Tensors begin at multiples of so many bytes.
STEP = 64
# Memory is pinned by pages, each for itself.
PAGE = 4096


@dataclass(frozen=True)
class _Place:
    """Where in a piece of memory a tensor lies."""

    start: int
    shape: torch.Size
    dtype: torch.dtype

    @property
    def end(self):
        size = prod(self.shape) * self.dtype.itemsize
        return self.start + -(-size // STEP) * STEP

    def of(self, piece):
        """The tensor."""
        size = prod(self.shape) * self.dtype.itemsize
        return piece[self.start : self.start + size].view(self.dtype).view(self.shape)


class Entry(Mapping):
    """An entry on a device. What belongs to a block arrives, at the latest, when it is asked for."""

    def __init__(self, values, marks=None):
        # marks: {block: the Mark of its arrival}
        self._values, self._marks = values, marks or {}
        # bytes of main memory that it takes
        self.size = _places(values)[1]

    def __getitem__(self, block):
        mark = self._marks.pop(block, None)
        if mark is not None:
            mark.hold_back()
        return self._values[block]

    def __iter__(self):
        return iter(self._values)

    def __len__(self):
        return len(self._values)

    def form(self, block):
        """The same without waiting: of tensors only the form may be looked at."""
        return self._values[block]


class FlatEntry:
    """An entry in one piece of main memory, pinned where it comes from a device that copies beside its computing."""

    def __init__(self, entry):
        self.places, size = _places(entry)
        # {lane: the Mark of the last that it does with the piece}
        self.marks = {}
        tensors = [
            (place, value)
            for block, places in self.places.items()
            for place, value in zip(places, entry[block], strict=True)
            if isinstance(place, _Place)
        ]
        lane = lane_of(tensors[0][1].device) if size else None
        pages = _pages(size) if lane else torch.empty(size, dtype=torch.uint8)
        self.piece = pages[:size]
        pairs = [(place.of(self.piece), value) for place, value in tensors]
        if lane is None:
            for into, source in pairs:
                into.copy_(source)
            return
        if mm.pin_memory(pages):
            weakref.finalize(self, _unpin, pages, self.marks).atexit = False
        (self.marks[lane],) = lane.copy([pairs])

    def on(self, piece):
        """The values of the entry with its tensors in another piece, or in its own."""
        return {
            block: tuple(place.of(piece) if isinstance(place, _Place) else place for place in places)
            for block, places in self.places.items()
        }

    def parts(self, count):
        """At most so many parts of the piece, in the order of its blocks: [(blocks, slice), ...]."""
        blocks = list(self.places)
        step = -(-len(blocks) // count) or 1
        groups = [blocks[first : first + step] for first in range(0, len(blocks), step)]
        found, start = [], 0
        for group in groups:
            ends = [place.end for block in group for place in self.places[block] if isinstance(place, _Place)]
            end = max(ends, default=start)
            if end > start:
                found.append((group, slice(start, end)))
            start = end
        return found


def on_device(flat, device, most):
    """{key: Entry} on a device, of {key: FlatEntry}.

    Where the device has a lane the copies go on beside what it computes: those of early blocks first, at most `most`
    of them, but one for each entry.
    """
    lane = lane_of(device)
    for one in flat.values():
        for other, mark in list(one.marks.items()):
            if other is not lane:
                mark.wait()
    if lane is None:
        moved = {key: one.on(one.piece) for key, one in flat.items()}
        return {
            key: Entry({block: tuple(_to(value, device) for value in several) for block, several in values.items()})
            for key, values in moved.items()
        }
    pieces = {key: torch.empty(len(one.piece), dtype=torch.uint8, device=device) for key, one in flat.items()}
    parts = [
        (number, key, blocks, part)
        for key, one in flat.items()
        for number, (blocks, part) in enumerate(one.parts(max(1, most // len(flat))))
    ]
    parts.sort(key=lambda one: one[0])
    marks = lane.copy([[(pieces[key][part], flat[key].piece[part])] for _, key, _, part in parts])
    arrivals = {key: {} for key in flat}
    for (_, key, blocks, _), mark in zip(parts, marks, strict=True):
        arrivals[key] |= dict.fromkeys(blocks, mark)
        flat[key].marks[lane] = mark
    return {key: Entry(one.on(pieces[key]), arrivals[key]) for key, one in flat.items()}


def _places(entry):
    """({block: a _Place for each tensor, and the other values}, bytes in all)."""
    found, start = {}, 0
    for block, several in entry.items():
        places = []
        for value in several:
            # tensors without data (FLOPs are counted on those) have nothing to keep
            if isinstance(value, torch.Tensor) and not value.is_meta:
                value = _Place(start, value.shape, value.dtype)
                start = value.end
            places.append(value)
        found[block] = tuple(places)
    return found, start


def _pages(size):
    """Pages of memory with room for so many bytes, in which nothing else lies."""
    size = -(-size // PAGE) * PAGE
    memory = torch.empty(size + PAGE, dtype=torch.uint8)
    start = -memory.data_ptr() % PAGE
    return memory[start : start + size]


def _to(value, device):
    return value.to(device) if isinstance(value, torch.Tensor) and not value.is_meta else value


def _unpin(pages, marks):
    # the memory may go once nothing copies any more
    for mark in list(marks.values()):
        mark.wait()
    mm.unpin_memory(pages)
