"""Who looked where: the objects' shares of a finished run, kept until a few runs later, and drawn as heat maps."""

import weakref
from dataclasses import dataclass

import torch

from .bank import digest

# A prompt may sample twice with one MODEL (a second pass at a larger size) before its maps are drawn.
KEPT_RUNS = 4

_KEPT = weakref.WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class MergeMaps:
    """Of one run: per object its words and its share (b, h, w) of each place, in 0..1."""

    result: bytes
    maps: tuple  # of (words, (b, h, w))


def keep_maps(technique, latents, maps):
    """Notes the maps [(words of r objects, shares (b, r, h, w)), ...] of the run that ended with these latents."""
    if not maps:
        return
    per_object = tuple((word, shares[:, i]) for words, shares in maps for i, word in enumerate(words))
    kept = [old for old in _KEPT.get(technique, ()) if old.result != _result(latents)]
    _KEPT[technique] = (*kept, MergeMaps(_result(latents), per_object))[-KEPT_RUNS:]


def maps_of(technique, latents):
    """The MergeMaps of the run of a technique that ended with these latents, None if it is not (any more) known."""
    return next((kept for kept in _KEPT.get(technique, ()) if kept.result == _result(latents)), None)


def _result(latents):
    return digest(latents.detach().to("cpu", torch.float32))
