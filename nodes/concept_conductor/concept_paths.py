"""The paths of a run: which sets of weights with their prompts there are beside the base, and what text each reads."""

from dataclasses import dataclass
from functools import cached_property

import torch

from ..host.content_keys import digest
from ..host.layered_prompts import contexts_of
from ..host.rows import COND, NEGATIVE, POSITIVE
from ..host.text_rows import text_rows
from ..host.unet_inputs import unet_inputs
from ..row_adapters.concept_deltas import concept_deltas


@dataclass(frozen=True, eq=False)
class ConceptPath:
    """A set of weights with its prompts: one or several equal concepts. The base is no ConceptPath."""

    deltas: object  # concept_deltas.Deltas
    positive: tuple  # (context (1, T, D), the dictionary of its other values)
    negative: tuple | None  # None: the base's own
    concepts: tuple  # numbers of the concepts that it serves, from 0

    @cached_property
    def texts_key(self):
        return tuple(_text_key(text) for text in (self.positive, self.negative))


def paths_of(model, concepts):
    """The ConceptPaths of a chain of concepts beyond the base MODEL: equal ones share one."""
    found = {}
    for number, concept in enumerate(concepts):
        deltas = concept_deltas(model, concept.model, concept.strength)
        path = ConceptPath(deltas, _entry(concept.positive), concept.negative and _entry(concept.negative), (number,))
        key = deltas, path.texts_key
        if key in found:
            path = ConceptPath(path.deltas, path.positive, path.negative, (*found[key].concepts, number))
        found[key] = path
    return tuple(found.values())


def _entry(conditioning):
    tensor, values = conditioning[0]
    return tensor, values


def _text_key(text):
    if text is None:
        return None
    tensor, values = text
    others = sorted((name, value) for name, value in values.items() if isinstance(value, int | float | str))
    return digest(tensor, values.get("pooled_output"), contexts_of(tensor, values)), tuple(others)


def own_text_of(chunk):
    """Which of a concept's texts its rows of a chunk read, POSITIVE or NEGATIVE; None for neither.

    A guider may have an empty prompt beside its negative (Perp-Neg): no concept has a text for that.
    """
    if chunk.role == COND:
        return POSITIVE
    return NEGATIVE if chunk.name == NEGATIVE else None


class PathTexts:
    """The prompts of all paths in one run, as the UNet takes them."""

    def __init__(self, base, paths, latent_size):
        latent = torch.zeros(1, base.latent_format.latent_channels, *latent_size)
        self._made, self._rows = {}, {}
        for path in paths:
            for which, text in ((POSITIVE, path.positive), (NEGATIVE, path.negative)):
                if text is not None:
                    self._made[path, which] = unet_inputs(base, *text, latent, which)

    def of(self, path, which):
        """The Inputs of a path's rows; None where they read what the base's rows read. which: as `own_text_of`."""
        return self._made.get((path, which))

    def rows(self, path, which, rows, like):
        """The TextRows of `rows` rows of such Inputs on the device and in the dtype of `like`, made once in a run."""
        key = path, which, rows, like.device, like.dtype
        if key not in self._rows:
            self._rows[key] = text_rows(self.of(path, which), rows, like)
        return self._rows[key]
