"""MIP-Adapter: how several image prompts (arXiv 2409.17920), each on its own object, join a MODEL.

The keys and values of the image tokens at each cross-attention are computed once, when the node runs. In sampling, an
object's share at a position comes from how its phrase, read by the UNet's own text keys, sees the picture.
"""

import weakref
from dataclasses import dataclass
from types import SimpleNamespace

import comfy.model_management
import torch

from ..host.attach import attach
from ..host.calls import live_unet
from ..host.choices import check_listed
from ..host.when import Window
from ..image_adapters.adapter_fit import check_fits
from ..image_adapters.adapter_use import MIP_NODE, check_use
from ..image_adapters.image_tokens import empty_tokens, subject_tokens, zero_pixels
from ..references.reference_views import any_connected, regions_of, strengths_of
from .image_layers import image_layers
from .image_member import ImageMember
from .image_technique import ImagePrompts
from .image_words import PHRASE_SOURCES, read_words
from .sampled_text import looked_up

MERGES = ("weighted", "joint")


@dataclass(frozen=True)
class MIPSettings:
    """What one MIP-Adapter node is set to. Raises ValueError for values that it cannot work with."""

    scale: float = 0.75  # of the image part, 0 is off
    merge: str = "weighted"  # one of MERGES; "joint" is a plain IP-Adapter
    merge_power: float = 1.0  # of the object maps
    phrase_source: str = "standalone"  # one of PHRASE_SOURCES; "prompt" looks the words up in `prompt`
    text_gate: bool = True  # use the gate of the file, if it has one
    window: Window = Window()
    prompt: str = ""

    def __post_init__(self):
        check_listed("merge", self.merge, MERGES)
        check_listed("phrase_source", self.phrase_source, PHRASE_SOURCES)


def attach_mip_adapter(model, adapter, clip, clip_vision, references, settings):
    """The MODEL with the references in its cross-attention; the MODEL itself where nothing would change.

    references: tuple of References, one object each. Raises ValueError for inputs it cannot work with.
    """
    if not any_connected(references) or settings.scale == 0 or not any(reference.strength for reference in references):
        return model
    check_use(adapter, MIP_NODE)
    blocks = check_fits(adapter, live_unet(model.model))
    joint = settings.merge == "joint"
    words = () if joint else read_words(model.model, adapter, clip, references, settings.prompt, settings.phrase_source)
    tokens = subject_tokens(adapter, clip_vision, references)
    member = ImageMember(
        adapter=weakref.ref(adapter),
        label=MIP_NODE,
        scale=float(settings.scale),
        joint=joint,
        power=float(settings.merge_power),
        window=settings.window,
        text_gate=settings.text_gate,
        phrases=words,
        strengths=strengths_of(references),
        regions=regions_of(references),
        words=tuple(reference.word for reference in references),
        lengths=(tokens.shape[1],) * len(references),
        layers=image_layers(blocks, adapter, tokens, _empty_tokens(adapter, clip_vision), settings.text_gate),
        prompts=(looked_up(clip, settings.prompt),) if any(phrase.positions for phrase in words) else (),
    )
    return attach(model, ImagePrompts((member,)))


def encode_pixels(clip_vision, pixels):
    """What a CLIP_VISION sees in normalised pixels (m, 3, H, W): image_embeds and penultimate_hidden_states.

    As `encode_image`, but without its preprocessing, which turns no picture into pixels that are all zero.
    """
    comfy.model_management.load_model_gpu(clip_vision.patcher)
    pixels = pixels.to(clip_vision.load_device, dtype=torch.float32)
    _, penultimate, embeds, _ = clip_vision.model(pixel_values=pixels, intermediate_output=-2)
    device = comfy.model_management.intermediate_device()
    return SimpleNamespace(image_embeds=embeds.to(device), penultimate_hidden_states=penultimate.to(device))


def _empty_tokens(adapter, clip_vision):
    if not adapter.reads_hidden_states:
        return empty_tokens(adapter)
    return empty_tokens(adapter, encode_pixels(clip_vision, zero_pixels(clip_vision)).penultimate_hidden_states)
