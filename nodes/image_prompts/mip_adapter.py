"""MIP-Adapter: how several image prompts (arXiv 2409.17920), each on its own object, join a MODEL.

The keys and values of the image tokens at each cross-attention are computed once, when the node runs. In sampling, an
object's share at a position comes from how its phrase, read by the UNet's own text keys, sees the picture.
"""

import math
import weakref
from dataclasses import dataclass
from types import SimpleNamespace

import comfy.model_management
import torch

from ..host.attach import attach, technique_of
from ..host.families import check_one_device
from ..host.latents import checked_images, latents_of, pixels_of
from ..host.messages import input_error, warn_user
from ..host.run_records import keep_record, record_of
from ..host.technique import Technique
from ..host.when import Window
from ..image_adapters.adapter_fit import check_fits
from ..image_adapters.image_tokens import empty_tokens, subject_tokens, zero_pixels
from ..references.reference_views import label_of, region_of
from .heat_maps import heat_maps
from .image_branch import ImageBranch
from .image_layers import image_layers
from .image_member import ImageMember
from .image_run import ImageRun
from .image_words import check_words, read_words

MERGES = ("weighted", "joint")


@dataclass(frozen=True)
class MIPSettings:
    """What one MIP-Adapter node is set to. Raises ValueError for numbers that it cannot work with."""

    scale: float = 0.75  # of the image part, 0 is off
    merge: str = "weighted"  # one of MERGES; "joint" is a plain IP-Adapter
    merge_power: float = 1.0  # of the object maps
    phrase_source: str = "standalone"  # one of PHRASE_SOURCES; "prompt" looks the words up in `prompt`
    text_gate: bool = True  # use the gate of the file, if it has one
    window: Window = Window()
    prompt: str = ""

    def __post_init__(self):
        for name in ("scale", "merge_power"):
            value = getattr(self, name)
            if not math.isfinite(value):
                raise input_error(f"{name} is {value}; enter a number")
        if self.merge_power < 0:
            raise input_error(
                f"merge_power is {self.merge_power}; enter a number of at least 0 (0: equal mix, 1: as published)"
            )


def attach_mip_adapter(model, adapter, clip, clip_vision, references, settings):
    """The MODEL with the references in its cross-attention; the MODEL itself where nothing would change.

    references: tuple of References, one object each. Raises ValueError for inputs it cannot work with.
    """
    if not references:
        warn_user("no references are connected, so this node does nothing")
    if not references or settings.scale == 0 or not any(reference.strength for reference in references):
        return model
    blocks = check_fits(adapter, model.model.diffusion_model)
    joint = settings.merge == "joint"
    words = () if joint else read_words(model.model, adapter, clip, references, settings.prompt, settings.phrase_source)
    tokens = subject_tokens(adapter, clip_vision, references)
    member = ImageMember(
        adapter=weakref.ref(adapter),
        scale=float(settings.scale),
        joint=joint,
        power=float(settings.merge_power),
        window=settings.window,
        text_gate=settings.text_gate,
        phrases=words,
        strengths=tuple(float(reference.strength) for reference in references),
        regions=tuple(region_of(r, label_of(number, r)) for number, r in enumerate(references, 1)),
        words=tuple(reference.word for reference in references),
        layers=image_layers(blocks, adapter, tokens, _empty_tokens(adapter, clip_vision), settings.text_gate),
    )
    return attach(model, ImagePrompts((member,)))


def maps_over(model, samples, images=None):
    """IMAGE: the objects' shares of the result `samples`, a LATENT, drawn over its decoded images if given.

    Raises ValueError for a MODEL without MIP-Adapter, and for latents that it did not make lately.
    """
    technique = technique_of(model, ImagePrompts.name)
    if technique is None:
        raise input_error(
            "this MODEL has no MIP-Adapter; connect the MODEL that MIP-Adapter gives and that was sampled"
        )
    latents = latents_of(samples)
    maps = record_of(technique, latents)
    if maps is None:
        raise input_error(
            "these samples are not from a recent run of this MODEL with MIP-Adapter active; connect the LATENT "
            "straight from the sampler that uses this MODEL, and run again"
        )
    images = None if images is None else checked_images(images, "images")
    if images is not None and len(images) not in (1, len(latents)):
        raise input_error(f"images has {len(images)} pictures for {len(latents)} samples; connect the decoded samples")
    return heat_maps(maps, pixels_of(latents.shape[-2:]), images)


def encode_pixels(clip_vision, pixels):
    """What a CLIP_VISION sees in normalised pixels (m, 3, H, W): image_embeds and penultimate_hidden_states.

    As `encode_image`, but without its preprocessing, which turns no picture into pixels that are all zero.
    """
    comfy.model_management.load_model_gpu(clip_vision.patcher)
    pixels = pixels.to(clip_vision.load_device, dtype=torch.float32)
    _, penultimate, embeds, _ = clip_vision.model(pixel_values=pixels, intermediate_output=-2)
    device = comfy.model_management.intermediate_device()
    return SimpleNamespace(image_embeds=embeds.to(device), penultimate_hidden_states=penultimate.to(device))


class ImagePrompts(Technique):
    """All MIP-Adapter nodes of one MODEL. Nodes of equal settings share one merge; others add to it."""

    name = "mip_adapter"
    order = 30

    def __init__(self, members):
        self.members = members

    def joined_by(self, later):
        members = list(self.members)
        for new in later.members:
            equal = next((i for i, member in enumerate(members) if member.settings == new.settings), None)
            if equal is None:
                members.append(new)
            else:
                members[equal] = members[equal].joined_by(new)
        for member in members:
            check_words(member.phrases, [f"reference {number}" for number in range(1, len(member.phrases) + 1)])
        return ImagePrompts(tuple(members))

    def begin(self, run):
        """Raises ValueError for a model on several devices: maps are read by the text's own matrices."""
        if any(member.needs_maps for member in self.members):
            check_one_device(run.guider.model_patcher, "MIP-Adapter with several references")

    def plan(self, call):
        active = [m for m in self.members if m.window.holds(call.moment, call.base.model_sampling)]
        if not active:
            return {}
        state = call.run.state(self.name, ImageRun)
        state.enter(call, active)
        return {("attn2", block): ImageBranch(block, active, state, call.run) for block in active[0].layers}

    def finished(self, run, latents):
        state = run.state(self.name, ImageRun)
        rows, size = len(latents), tuple(latents.shape[-2:])
        # per object its words and its share (b, h, w) of each place, in 0..1
        maps = []
        for member in self.members:
            shares = state.mean_shares(member, rows, size)
            if shares is not None:
                maps += [(word, shares[:, i]) for i, word in enumerate(member.words)]
        if maps:
            keep_record(self, latents, tuple(maps))


def _empty_tokens(adapter, clip_vision):
    if not adapter.reads_hidden_states:
        return empty_tokens(adapter)
    return empty_tokens(adapter, encode_pixels(clip_vision, zero_pixels(clip_vision)).penultimate_hidden_states)
