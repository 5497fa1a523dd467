"""MIP-Adapter: how several image prompts (arXiv 2409.17920), each on its own object, join a MODEL.

The keys and values of the image tokens at each cross-attention are computed once, when the node runs. In sampling, an
object's share at a position comes from how its phrase, read by the UNet's own text keys, sees the picture.
"""

import math
from dataclasses import dataclass, replace

import torch

from .attach import Technique, attach
from .blocks import unet_of
from .image_adapter_fit import check_fits
from .image_branch import ImageBranch
from .image_layers import image_layers
from .image_run import ImageRun
from .image_tokens import empty_tokens, subject_tokens
from .merge_maps import keep_maps
from .phrases import phrases_of
from .pictures import label_of, region_of
from .say import refusal, tell
from .when import Window

MERGES = ("weighted", "joint")
PHRASE_SOURCES = ("standalone", "prompt")


def attach_mip_adapter(
    model,
    adapter,
    clip,
    clip_vision,
    references,
    *,
    scale=0.75,
    merge="weighted",
    merge_power=1.0,
    phrase_source="standalone",
    text_gate=True,
    window=(0.0, 1.0),
    prompt="",
):
    """The MODEL with the references in its cross-attention; the MODEL itself where nothing would change.

    references: tuple of References, one object each; scale: of the image part, 0 is off; merge: one of MERGES (joint is
    a plain IP-Adapter); merge_power: of the object maps; phrase_source: one of PHRASE_SOURCES, "prompt" looks the words
    up in `prompt`; text_gate: use the gate of the file, if it has one; window: (start, end) percent.
    Raises ValueError for inputs it cannot work with.
    """
    unet = unet_of(model, "MIP-Adapter")
    for name, value in (("scale", scale), ("merge_power", merge_power)):
        if not math.isfinite(value):
            raise refusal(f"{name} is {value}; enter a number")
    if merge_power < 0:
        raise refusal(f"merge_power is {merge_power}; enter a number from 0 (equal mix) upwards, 1 is as published")
    window = Window(*window)
    if not references or scale == 0 or not any(reference.strength for reference in references):
        return model
    check_fits(adapter, unet)
    phrases = _phrases(model, clip, references, merge, phrase_source, prompt)
    member = Member(
        adapter=adapter,
        scale=float(scale),
        joint=merge == "joint",
        power=float(merge_power),
        window=window,
        phrases=tuple(phrases),
        strengths=tuple(float(reference.strength) for reference in references),
        regions=tuple(region_of(r, label_of(n, r)) for n, r in enumerate(references, 1)),
        words=tuple(reference.word for reference in references),
        text_gate=text_gate,
        layers=image_layers(
            unet,
            adapter,
            subject_tokens(adapter, clip_vision, references),
            empty_tokens(adapter, lambda pixels: encode_pixels(clip_vision, pixels)),
            text_gate,
        ),
    )
    return attach(model, MIPAdapter((member,)))


@dataclass(frozen=True, eq=False)
class Member:
    """What one MIP-Adapter node adds to a MODEL; several of equal settings become one."""

    adapter: object
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
        return id(self.adapter), self.scale, self.joint, self.power, self.window, self.text_gate

    @property
    def has_regions(self):
        return any(region is not None for region in self.regions)

    @property
    def needs_maps(self):
        return not self.joint and len(self.strengths) > 1

    @property
    def counts(self):
        """Tokens of each object's phrase."""
        return [len(phrase.rows) for phrase in self.phrases]

    @property
    def from_prompt(self):
        return any(phrase.positions for phrase in self.phrases)

    def phrase_rows(self, context):
        """(1 or b, sum of L, D): the phrases alone, or where they stand in a prompt's context (b, m, D)."""
        if context is None:
            return torch.cat([phrase.rows for phrase in self.phrases])[None]
        found = [p.positions and max(p.positions) < context.shape[1] for p in self.phrases]
        return torch.cat(
            [
                context[:, list(phrase.positions)] if there else phrase.rows.to(context).expand(len(context), -1, -1)
                for phrase, there in zip(self.phrases, found, strict=True)
            ],
            1,
        )

    def joined_by(self, later):
        layers = {block: layer.joined_by(later.layers[block]) for block, layer in self.layers.items()}
        several = {
            name: getattr(self, name) + getattr(later, name) for name in ("phrases", "strengths", "regions", "words")
        }
        return replace(self, layers=layers, **several)
