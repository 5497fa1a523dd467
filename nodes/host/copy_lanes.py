"""Copies between main memory and a device that go on while the device computes, where it has streams."""

from functools import cache

import comfy.model_management as mm
import torch


class Mark:
    """A point in what a lane has been given to do."""

    def __init__(self, lane, event):
        self.lane = lane
        self._event = event

    def hold_back(self):
        """What the device is given from now on, by this thread, waits for the mark; we do not."""
        self.lane.streams.current_stream(self.lane.device).wait_event(self._event)

    def wait(self):
        """Waits until the lane has come here."""
        self._event.synchronize()


class Lane:
    """A stream of our own on a device."""

    def __init__(self, device, streams):
        self.device, self.streams = device, streams
        self._stream = streams.Stream(device=device)

    def copy(self, batches):
        """Copies that begin when the device has done what it has been given so far: the Mark of each batch's end.

        batches: [[(into, source), ...], ...]; the tensors on the device may be dropped meanwhile, those in main memory
        may not.
        """
        self._stream.wait_stream(self.streams.current_stream(self.device))
        marks = []
        with self.streams.stream(self._stream):
            for batch in batches:
                for into, source in batch:
                    into.copy_(source, non_blocking=True)
                    for one in (into, source):
                        if one.device.type != "cpu":
                            one.record_stream(self._stream)
                event = self.streams.Event()
                event.record(self._stream)
                marks.append(Mark(self, event))
        return marks


@cache
def lane_of(device):
    """The Lane of a device (a torch.device), one in a process; None where nothing is copied beside computing."""
    streams = getattr(torch, device.type, None)
    named = all(hasattr(streams, name) for name in ("Stream", "Event", "stream", "current_stream"))
    # torch has empty streams for a CPU
    if device.type == "cpu" or not named or not mm.device_supports_non_blocking(device):
        return None
    return Lane(device, streams)
