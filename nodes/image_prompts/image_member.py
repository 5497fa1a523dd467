"""What one node adds to a MODEL's image prompts: its settings, its objects, their keys and values."""

import weakref
from dataclasses import dataclass, replace

import torch

from ..host.when import Window


@dataclass(frozen=True, eq=False)
class ImageMember:
    """What one MIP-Adapter node adds to a MODEL; several of equal settings become one."""

    adapter: weakref.ref  # only to tell which it was: its matrices are not needed any more
    scale: float
    joint: bool
    power: float
    window: Window
    text_gate: bool
    phrases: tuple  # of Phrase, one per object; none where no map is needed
    strengths: tuple
    regions: tuple  # (H, W) in 0..1 over the result, or None, per object
    words: tuple
    layers: dict  # {host key: ImageLayer}

    @property
    def settings(self):
        return self.adapter, self.scale, self.joint, self.power, self.window, self.text_gate

    @property
    def has_regions(self):
        return any(region is not None for region in self.regions)

    @property
    def needs_maps(self):
        return not self.joint and len(self.strengths) > 1

    @property
    def counts(self):
        """Tokens of each object's phrase."""
        return [phrase.tokens for phrase in self.phrases]

    @property
    def from_prompt(self):
        return any(phrase.positions for phrase in self.phrases)

    def phrase_rows(self, context, layer):
        """(1 or b, sum of L, D) at a cross-attention, by its number in order of execution: the phrases alone, or where
        they stand in a prompt's context (b, m, D).
        """
        alone = [phrase.rows[layer % len(phrase.rows)][None] for phrase in self.phrases]
        if context is None:
            return torch.cat(alone, 1)
        found = [p.positions and max(p.positions) < context.shape[1] for p in self.phrases]
        return torch.cat(
            [
                context[:, list(phrase.positions)] if there else rows.to(context).expand(len(context), -1, -1)
                for phrase, rows, there in zip(self.phrases, alone, found, strict=True)
            ],
            1,
        )

    def joined_by(self, later):
        layers = {block: layer.joined_by(later.layers[block]) for block, layer in self.layers.items()}
        several = {
            name: getattr(self, name) + getattr(later, name) for name in ("phrases", "strengths", "regions", "words")
        }
        return replace(self, layers=layers, **several)
