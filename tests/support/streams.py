"""Streams on the emulated cards: a copy that one is given is made once somebody waits for it, and not before.

What has not arrived is not a number, so that nobody gets by without waiting. Copies are all that streams do here.
"""

from contextlib import contextmanager

import comfy.model_management as mm
import torch
from support import devices

from pack.nodes.host import copy_lanes


class Stream:
    """A stream of our own."""

    def __init__(self, device):
        self.device = device
        # (function, args, kwargs) of the copies, and how many of them are made
        self.given, self.made = [], 0

    def give(self, *work):
        self.given.append(work)

    def go_on(self, until=None):
        """Makes the copies that it was given first."""
        for function, args, kwargs in self.given[self.made : until]:
            function(*args, **kwargs)
        self.made = max(self.made, len(self.given) if until is None else until)

    def wait_stream(self, other):
        """The card's own stream has done all that it was given."""


class Event:
    """A point in what a stream is given."""

    def record(self, stream):
        self.stream, self.number = stream, len(stream.given)

    def synchronize(self):
        self.stream.go_on(self.number)


class OwnStream:
    """The stream on which a card computes."""

    def wait_event(self, event):
        event.synchronize()


class Host:
    """What is pinned, and what is left of it in streams when it is no more."""

    def __init__(self):
        self.streams, self.pinned, self.torn = [], {}, []

    def stream(self, device):
        self.streams.append(Stream(device))
        return self.streams[-1]

    def pin(self, tensor):
        self.pinned[tensor.data_ptr()] = tensor.nbytes
        return True

    def unpin(self, tensor):
        start, size = tensor.data_ptr(), self.pinned.pop(tensor.data_ptr())
        for stream in self.streams:
            for _, args, _ in stream.given[stream.made :]:
                self.torn += [t for t in args[:2] if start <= t.data_ptr() < start + size]
        return True

    @property
    def waiting(self):
        """Copies that nobody has waited for."""
        return sum(len(stream.given) - stream.made for stream in self.streams)


@contextmanager
def _given_to(stream):
    devices.ASIDE.append(stream)
    try:
        yield
    finally:
        devices.ASIDE.pop()


@contextmanager
def streaming(monkeypatch):
    """Inside `two_cards`, the cards have streams and the host pins memory. Yields what is known of it (Host)."""
    host = Host()
    module = getattr(torch, devices.cards()[0].type)
    names = {"Stream": host.stream, "Event": Event, "stream": _given_to, "current_stream": lambda device: OwnStream()}
    empty = torch.empty

    def unwritten(*args, **kwargs):
        made = empty(*args, **kwargs)
        return made.fill_(255) if made.dtype == torch.uint8 else made

    with monkeypatch.context() as patch:
        for name, value in names.items():
            patch.setattr(module, name, value, raising=False)
        patch.setattr(torch, "empty", unwritten)
        patch.setattr(mm, "pin_memory", host.pin)
        patch.setattr(mm, "unpin_memory", host.unpin)
        copy_lanes.lane_of.cache_clear()
        try:
            yield host
        finally:
            copy_lanes.lane_of.cache_clear()
