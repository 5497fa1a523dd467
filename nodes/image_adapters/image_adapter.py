"""Image adapters (IP-Adapter, MIP-Adapter, FaceID): what one is, and how it is read from any published layout."""

from dataclasses import dataclass, field

import torch

from ...kernels.face_projection import EMBEDDING, FaceSizes
from ...kernels.image_projection import ProjectionSizes, image_tokens
from ...kernels.story_projection import StorySizes
from ..files.model_files import path_of, register
from ..files.safe_files import read_tensors
from ..host.families import CONTEXT_WIDTHS
from .adapter_keys import check_lora, checked_pairs, checked_projection, grouped, published_names, taken_apart_lora
from .mistaken_files import refuse_others

ADAPTER_KINDS = ("ipadapter",)
# What the variants take from the vision encoder, and the towers that give it, by its width. Those that read a face's
# embedding alone take nothing.
OUTPUTS = {
    "base": "image_embeds",
    "plus": "penultimate_hidden_states",
    "full-face": "penultimate_hidden_states",
    "faceid-plus": "penultimate_hidden_states",
    "storymaker": "penultimate_hidden_states",
}
# A Resampler of face embeddings: InstantID's and one of FaceID's, which are alike.
RESAMPLED_FACE = "resampled-face"
TOWERS = {
    "image_embeds": {768: "ViT-L", 1024: "ViT-H", 1280: "ViT-bigG"},
    "penultimate_hidden_states": {768: "ViT-B", 1024: "ViT-L", 1152: "SigLIP", 1280: "ViT-H", 1664: "ViT-bigG"},
}

register(*ADAPTER_KINDS)


@dataclass(frozen=True)
class Embed:
    """What an adapter takes from a vision encoder: the output's name, its width, and the tower that gives it."""

    output: str
    width: int

    @property
    def tower(self):
        return tower_of(self.output, self.width)


@dataclass(frozen=True, eq=False)
class Pair:
    """The matrices of one cross-attention, as stored."""

    to_k: torch.Tensor  # (C, D)
    to_v: torch.Tensor  # (C, D)
    gate: torch.Tensor | None  # (1, C): MIP-Adapter's text gate


@dataclass(frozen=True, eq=False)
class Projection:
    """The weights that make image tokens, by their published names, as stored."""

    sizes: ProjectionSizes | FaceSizes | StorySizes
    weights: dict


@dataclass(frozen=True, eq=False)
class ImageAdapter:
    """One adapter on the CPU. `pairs` are in the order of the file: see `adapter_fit.check_fits`."""

    name: str
    # "base", "plus" or "full-face" of pictures; "faceid", "faceid-plus", RESAMPLED_FACE or "storymaker" of people
    variant: str
    tokens: int  # T, of one picture
    width: int  # D, of the model's context
    embed: Embed | None  # None: it reads faces' embeddings alone
    projection: Projection
    pairs: tuple
    lora: dict = field(default_factory=dict)  # {"0.to_q_lora.down.weight": tensor, ...}, for the UNet's own matrices

    @property
    def gated(self):
        """Whether the file holds MIP-Adapter's text gate."""
        return self.pairs[0].gate is not None

    @property
    def family(self):
        return family_of_width(self.width)

    @property
    def reads_hidden_states(self):
        """Whether it takes the vision encoder's hidden states (m, t, E), and not one vector per picture (m, E)."""
        return self.embed.output != OUTPUTS["base"]

    def empty(self, zero_hidden=None):
        """Image tokens (1, T, D) float32 of no picture; zero_hidden (1, t, E): hidden states of pixels all zero."""
        return self.project(zero_hidden if self.reads_hidden_states else torch.zeros(1, self.embed.width))

    def project(self, embeds):
        """Image tokens (m, T, D) float32 of the encoder's output for m pictures: (m, E), or (m, t, E) hidden states."""
        return image_tokens(embeds, self.projection.weights, self.projection.sizes)


def read_image_adapter(name):
    """The ImageAdapter of a file in the folders; ValueError says what is wrong with it, or what it is instead."""
    return adapter_from(read_tensors(path_of(name, *ADAPTER_KINDS))[0], name)


def adapter_from(tensors, name):
    """The ImageAdapter of {"group.key": tensor}; all tensors fit, or ValueError names the first that does not."""
    found = published_names(tensors)
    refuse_others({key: tuple(t.shape) for key, t in found.items()}, name)
    projection, matrices = grouped(found, name)
    matrices, lora = taken_apart_lora(matrices)
    pairs = tuple(Pair(*three) for three in checked_pairs(matrices, name))
    check_lora(lora, [tuple(pair.to_k.shape) for pair in pairs], name)
    sizes = checked_projection(projection, pairs[0].to_k.shape[1], name)
    variant = RESAMPLED_FACE if sizes.variant == "plus" and sizes.embed == EMBEDDING else sizes.variant
    embed = Embed(OUTPUTS[variant], sizes.embed) if variant in OUTPUTS else None
    return ImageAdapter(name, variant, sizes.tokens, sizes.width, embed, Projection(sizes, projection), pairs, lora)


def tower_of(output, width):
    """The name of the vision tower that gives this output this wide."""
    return TOWERS[output].get(width, "another tower")


def family_of_width(width):
    """The family of checkpoints whose context is this wide, in words."""
    return f"{CONTEXT_WIDTHS[width]} (context {width})" if width in CONTEXT_WIDTHS else f"a model of context {width}"
