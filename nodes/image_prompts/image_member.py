"""What one node adds to a MODEL's image prompts: its settings, its objects, their keys and values."""

import weakref
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from ..host.text_rows import tokens_together
from ..host.when import Window

# What belongs to each object, one after the other.
_OF_OBJECTS = ("phrases", "strengths", "regions", "words", "lengths", "prompts")


@dataclass(frozen=True, eq=False)
class ImageMember:
    """What one node of image prompts adds to a MODEL; several of equal settings become one."""

    adapter: weakref.ref  # only to tell which it was: its matrices are not needed any more
    label: str  # what messages call the node
    scale: float
    joint: bool
    power: float
    window: Window
    text_gate: bool
    phrases: tuple  # of Phrase, one per object; none where no map is needed
    strengths: tuple
    regions: tuple  # (H, W) in 0..1 over the result, or None, per object
    words: tuple  # None for tokens of the ground, which are nobody's
    lengths: tuple  # the image tokens of each object
    layers: dict  # {host key: ImageLayer}
    prompts: tuple = ()  # of LookedUp: where its phrases have their places
    share_empty: bool = True  # whether one empty picture stands for all objects in unconditional rows

    @property
    def settings(self):
        return self.adapter, self.label, self.scale, self.joint, self.power, self.window, self.text_gate

    @property
    def has_regions(self):
        return any(region is not None for region in self.regions)

    @property
    def needs_maps(self):
        return not self.joint and len(self.strengths) > 1

    @property
    def counts(self):
        """Rows of each object's phrase in `phrase_rows`."""
        return [phrase.tokens * times for phrase, times in zip(self.phrases, self.times, strict=True)]

    @cached_property
    def times(self):
        """How often each phrase stands in `phrase_rows`: a mean over its tokens is the same, and where it costs little
        all phrases have equally many rows.
        """
        tokens = [phrase.tokens for phrase in self.phrases]
        common = tokens_together(tokens)
        return [common // count if common else 1 for count in tokens]

    @property
    def from_prompt(self):
        return any(phrase.positions for phrase in self.phrases)

    def phrase_rows(self, context, layer):
        """(1 or b, sum of L, D) at a cross-attention, by its number in order of execution: the phrases alone, or where
        they stand in a prompt's context (b, m, D).
        """
        alone = [phrase.rows[layer % len(phrase.rows)][None] for phrase in self.phrases]
        if context is None:
            return torch.cat([rows.repeat(1, times, 1) for rows, times in zip(alone, self.times, strict=True)], 1)
        found = [p.positions and max(p.positions) < context.shape[1] for p in self.phrases]
        return torch.cat(
            [
                (_at(context, phrase.positions) if there else rows.to(context).expand(len(context), -1, -1)).repeat(
                    1, times, 1
                )
                for phrase, rows, there, times in zip(self.phrases, alone, found, self.times, strict=True)
            ],
            1,
        )

    def joined_by(self, later):
        share_empty = self.share_empty and later.share_empty and self._has_the_empty_of(later)
        layers = {block: layer.joined_by(later.layers[block], share_empty) for block, layer in self.layers.items()}
        several = {name: getattr(self, name) + getattr(later, name) for name in _OF_OBJECTS}
        return replace(self, layers=layers, share_empty=share_empty, **several)

    def _has_the_empty_of(self, other):
        block = next(iter(self.layers))
        return torch.equal(self.layers[block].empty_k, other.layers[block].empty_k)


def _at(context, positions):
    """The rows (b, L, D) of a context (b, m, D) at some positions."""
    return context.index_select(1, torch.tensor(positions, device=context.device))
