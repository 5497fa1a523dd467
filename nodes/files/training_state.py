"""The state of a training between runs: whose it is, how far it got, taken over whole or not at all. And whether the
files that a training is to write are its own.
"""

import os

import torch

from ..host.messages import input_error, plain, warn_user
from .disk_errors import UnreadableFileError
from .new_files import put_tensors
from .safe_files import tensors_in

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class TrainingState:
    """Weights and moments of AdamW in one file; it counts only for the training that it was written by."""

    def __init__(self, path, weights, optimizer, identity):
        """identity: {name: text} of all that decides the training, which the file must say as well."""
        self.path, self.weights, self.optimizer, self.identity = path, weights, optimizer, identity
        self.written = None  # the SHA-256 of the network that was last written from this name
        self.changed = ()  # names of what differs from the training that the file was written by
        self.before = path.with_name(f"{path.name}.before")  # where that one's state goes
        self._of_another = False  # whether the file is still that one's

    @property
    def bytes_of_network(self):
        """Of the weights alone, without the moments."""
        return sum(t.numel() * t.element_size() for t in self.weights.values())

    def read(self):
        """Takes the state over; returns how many steps were done, 0 if there is none of this training.

        A file that cannot be read, or holds something else, is set aside with a warning.
        """
        if not self.path.exists():
            return 0
        try:
            tensors, metadata = tensors_in(self.path)
            done = max(0, int(metadata["done"]))
            differing = [name for name, text in self.identity.items() if metadata[name] != text]
            states = {} if differing else {key: self._of(tensors, key, weight) for key, weight in self.weights.items()}
        except UnreadableFileError as error:
            return self._set_aside(error.wrong)
        except (LookupError, ValueError):
            return self._set_aside("is not the state of a training")
        self.written = metadata.get("written")
        self.changed, self._of_another = differing, bool(differing)
        if differing:
            warn_user(
                f"{self.path.name} is the state of a training with other {' and '.join(differing)} ({done} steps): "
                f"this one starts anew, and as soon as it keeps a state that one is called {self.before.name}"
            )
            return 0
        for key, weight in self.weights.items():
            stored, moments = states[key]
            weight.data.copy_(stored)
            if moments:
                self.optimizer.state[weight] = {n: t if n == "step" else t.to(weight) for n, t in moments.items()}
        return done

    def keep(self, done):
        """Writes the state. A disk that does not take it is warned of: the run and its cancelling go on."""
        try:
            # the last state before it went wrong is worth more
            if all(bool(torch.isfinite(t).all()) for t in self.weights.values()):
                self._write(done)
        except (OSError, RuntimeError, MemoryError) as error:
            reason = getattr(error, "strerror", None) or error
            warn_user(
                f"the training's state {self.path.name} cannot be written into {self.path.parent} ({reason}); free "
                "space or give ComfyUI the right to write there, or a later run starts at the last state"
            )

    def where(self):
        """Words on the file: how large it is and where it lies; "" if there is none."""
        try:
            size = self.path.stat().st_size
        except OSError:
            return ""
        return f" (it goes on from {self.path.name}, {size / 1e6:.0f} MB, in output/{self.path.parent.name})"

    def _write(self, done):
        tensors = {f"weights/{key}": t for key, t in self.weights.items()}
        for key, weight in self.weights.items():
            moments = self.optimizer.state.get(weight, {})
            tensors |= {f"{name}/{key}": moments[name] for name in _MOMENTS if name in moments}
        if self._of_another and self.path.exists():
            self.path.replace(self.before)
        self._of_another = False
        written = {"written": self.written} if self.written else {}
        put_tensors(self.path, tensors, done=str(done), **self.identity, **written)

    def _of(self, tensors, key, weight):
        """(stored weight, {moment: tensor}) for one weight; LookupError if anything of it does not fit."""
        stored = tensors[f"weights/{key}"]
        moments = {name: tensors[f"{name}/{key}"] for name in _MOMENTS if f"step/{key}" in tensors}
        fitting = {name: torch.Size() if name == "step" else weight.shape for name in moments}
        if stored.shape != weight.shape or {name: t.shape for name, t in moments.items()} != fitting:
            raise LookupError(key)
        return stored, moments

    def _set_aside(self, wrong):
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.damaged{number}")).exists():
            number += 1
        try:
            self.path.replace(aside)
            where = f"is now called {aside.name}"
        except OSError as error:
            where = f"cannot be renamed ({error.strerror})"
        warn_user(f"{self.path.name} {wrong}; it {where}, and the training starts anew")
        return 0


def replaces(path, is_ours):
    """Whether a file is there that a training wrote before, which its next one may replace; ValueError for any other.

    is_ours(metadata of the file): whether that training is this one.
    """
    if not os.path.lexists(path):
        return False
    try:
        ours = is_ours(tensors_in(path)[1])
    except UnreadableFileError:
        ours = False
    if not ours:
        raise input_error(
            f"{path.name} already exists in {path.parent}, and this training did not write it; enter another file_name"
        )
    return True


def started_anew(state):
    """Words for the report on why a training did not go on where the state of its name stood; "" if it did."""
    if not state.changed:
        return ""
    return plain(f" (started anew: other {' and '.join(state.changed)})")
