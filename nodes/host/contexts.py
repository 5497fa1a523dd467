"""What the cross-attentions of the UNet read of a prompt: by layer, by timestep, and keys apart from values.

Contexts travel in the conditioning's dictionary (see layered_prompts.py). Layers are numbered in the order in which
they run; timesteps are 0 to 999 whatever the UNet gets, and sampling starts at the highest.
"""

from bisect import bisect_right
from dataclasses import dataclass

import torch

# Where sampling starts.
FIRST_TIMESTEP = 999.0


class Contexts:
    """What a prompt says at each timestep. Immutable: clones of a conditioning share it."""

    # ModelPatchers that must be loaded with the UNet for `at` to answer in a run
    models = ()

    def at(self, timestep):
        """(keys, values) at a timestep: (L, T, D) by cross-attention, or (1, T, D) for all; values None: the keys."""
        raise NotImplementedError

    def mapped(self, change):
        """The same with change(keys, values) -> (keys, values) done to it at every timestep."""
        raise NotImplementedError

    def to(self, like):
        """The same on the device and in the dtype of a tensor."""
        return self.mapped(each_of(lambda t: t.to(like)))

    @property
    def contents(self):
        """Tensors, numbers and texts, nested, that are equal only where the contexts of equal plain tensors are."""
        raise NotImplementedError

    def __deepcopy__(self, memo):
        # nodes copy conditionings in depth; a text encoder that makes contexts is not theirs to copy
        return self


@dataclass(frozen=True, eq=False)
class FixedContexts(Contexts):
    """The same at every timestep."""

    keys: torch.Tensor  # (L or 1, T, D)
    values: torch.Tensor | None = None  # as the keys; None: the keys

    def at(self, timestep):
        return self.keys, self.values

    def mapped(self, change):
        return FixedContexts(*change(self.keys, self.values))

    @property
    def contents(self):
        return self.keys, self.values


@dataclass(frozen=True, eq=False)
class StagedContexts(Contexts):
    """Others in each stage of sampling. Stages are numbered by rising timesteps, so from the end of sampling."""

    keys: torch.Tensor  # (S, L or 1, T, D)
    borders: tuple  # S - 1 rising timesteps, each the first of the stage above it
    values: torch.Tensor | None = None

    def at(self, timestep):
        stage = bisect_right(self.borders, timestep)
        return self.keys[stage], None if self.values is None else self.values[stage]

    def mapped(self, change):
        stages = len(self.keys)
        keys, values = change(*(None if t is None else t.flatten(0, 1) for t in (self.keys, self.values)))
        keys, values = (None if t is None else t.unflatten(0, (stages, -1)) for t in (keys, values))
        return StagedContexts(keys, self.borders, values)

    @property
    def contents(self):
        return self.keys, self.borders, self.values


def each_of(change):
    """A change of (keys, values) that does the same to both."""
    return lambda keys, values: (change(keys), None if values is None else change(values))
