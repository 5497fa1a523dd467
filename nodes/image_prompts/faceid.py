"""FaceID (IP-Adapter, arXiv 2308.06721): faces by their embeddings, several people at once, on SD1.5 and SDXL.

Its files hold image tokens' matrices and, most of them, a LoRA for the UNet. The merge is that of MIP-Adapter.
"""

import weakref
from dataclasses import dataclass

import torch

from ..faces.face_networks import check_trained
from ..faces.face_views import people_of
from ..host.attach import attach
from ..host.calls import live_unet
from ..host.choices import check_listed
from ..host.when import Window
from ..image_adapters.adapter_fit import check_fits
from ..image_adapters.adapter_lora import with_lora
from ..image_adapters.adapter_use import FACEID_NODE, check_use
from ..image_adapters.faceid_tokens import VERSIONS, faceid_empty, faceid_tokens, version_of
from ..image_adapters.image_tokens import check_vision
from ..references.reference_views import any_connected, regions_of, strengths_of
from .face_crops import seen_faces, seen_of_nothing
from .image_layers import image_layers
from .image_member import ImageMember
from .image_technique import ImagePrompts
from .image_words import read_words
from .mip_adapter import MERGES

# The recognition network that its files were trained with.
TRAINED = "w600k_r50"


@dataclass(frozen=True)
class FaceIDSettings:
    """What one FaceID node is set to. Raises ValueError for values that it cannot work with."""

    scale: float = 1.0  # of the image part, 0 is off
    structure: float = 1.0  # of what a plus file takes from the picture
    lora_strength: float = 1.0
    version: str = "auto"  # one of VERSIONS
    merge: str = "weighted"  # one of MERGES
    merge_power: float = 1.0
    window: Window = Window()

    def __post_init__(self):
        check_listed("version", self.version, VERSIONS)
        check_listed("merge", self.merge, MERGES)


def attach_faceid(model, adapter, analysis, clip, clip_vision, references, settings):
    """The MODEL with the people of the references in its cross-attention, and the adapter's LoRA in its weights.

    Raises ValueError for inputs it cannot work with; the MODEL itself where nothing would change.
    """
    if not any_connected(references):
        return model
    check_use(adapter, FACEID_NODE)
    blocks = check_fits(adapter, live_unet(model.model))
    patched = with_lora(model, adapter, settings.lora_strength)
    if settings.scale == 0 or not any(reference.strength for reference in references):
        return patched
    check_vision(adapter, clip_vision)
    check_trained(analysis, TRAINED, adapter.name)
    joint = settings.merge == "joint"
    phrases = () if joint else read_words(model.model, adapter, clip, references, "", "standalone")
    tokens, empty = _tokens_of_people(adapter, people_of(analysis, references), clip_vision, settings)
    member = ImageMember(
        adapter=weakref.ref(adapter),
        label=FACEID_NODE,
        scale=float(settings.scale),
        joint=joint,
        power=float(settings.merge_power),
        window=settings.window,
        text_gate=False,
        phrases=phrases,
        strengths=strengths_of(references),
        regions=regions_of(references),
        words=tuple(reference.word for reference in references),
        lengths=tuple(len(one) for one in tokens),
        layers=image_layers(blocks, adapter, tokens, empty),
    )
    return attach(patched, ImagePrompts((member,)))


def _tokens_of_people(adapter, people, clip_vision, settings):
    """(image tokens of each person, those of nobody)."""
    plus = adapter.embed is not None
    how = settings.structure, version_of(adapter, settings.version) if plus else 2
    tokens = []
    for views in people:
        hidden = seen_faces(adapter, clip_vision, views) if plus else None
        embeddings = torch.stack([view.embedding for view in views])
        tokens.append(faceid_tokens(adapter, embeddings, hidden, *how))
    return tokens, faceid_empty(adapter, seen_of_nothing(adapter, clip_vision) if plus else None, *how)
