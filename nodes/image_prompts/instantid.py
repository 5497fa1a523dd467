"""InstantID (arXiv 2401.07519): faces in every cross-attention, and IdentityNet, which places them; on SDXL.

Each person is one reference: the merge is that of MIP-Adapter, and IdentityNet sees each one's face alone.
"""

import weakref
from dataclasses import dataclass

import torch

from ..faces.face_networks import check_trained
from ..faces.face_views import people_of
from ..faces.pose_faces import faces_of_people, faces_of_pose
from ..host.attach import attach
from ..host.calls import live_unet
from ..host.choices import check_listed
from ..host.seeded import seeded_shares
from ..host.when import Window
from ..image_adapters.adapter_fit import check_fits
from ..image_adapters.adapter_use import INSTANTID_NODE, check_use
from ..references.reference_views import any_connected, regions_of, strengths_of
from .identity_control import checked_net, patcher_of, tell_of_faces_outside
from .identity_net import IdentityMember, IdentityNets
from .image_layers import image_layers
from .image_member import ImageMember
from .image_technique import ImagePrompts
from .image_words import read_words
from .mip_adapter import MERGES

VIEWS, PASSES = ("average", "joint"), ("per person", "together")
# The recognition network that its file was trained with.
ANTELOPE = "glintr100"


@dataclass(frozen=True)
class InstantIDSettings:
    """What one InstantID node is set to. Raises ValueError for values that it cannot work with."""

    scale: float = 0.8  # of the image part, 0 is off
    control_strength: float = 0.8  # of IdentityNet
    merge: str = "weighted"  # one of MERGES
    merge_power: float = 1.0
    views: str = "average"  # one of VIEWS: what several pictures of a person become
    control_passes: str = "per person"  # one of PASSES
    negative_noise: float = 0.0  # share of noise in the embedding of nobody
    window: Window = Window()
    control_window: Window = Window()

    def __post_init__(self):
        for name, listed in (("merge", MERGES), ("views", VIEWS), ("control_passes", PASSES)):
            check_listed(name, getattr(self, name), listed)


@dataclass(frozen=True, eq=False)
class InstantIDInputs:
    """What is connected to one InstantID node beside the MODEL."""

    adapter: object
    analysis: object
    clip: object
    control_net: object = None
    pose_image: torch.Tensor | None = None
    references: tuple = ()


def attach_instantid(model, inputs, settings):
    """The MODEL with the people of the references in its cross-attention and under IdentityNet.

    inputs: an InstantIDInputs. Raises ValueError for inputs it cannot work with; the MODEL itself where nothing would
    change.
    """
    references, adapter = inputs.references, inputs.adapter
    if not any_connected(references):
        return model
    reads = settings.scale != 0
    controls = inputs.control_net is not None and settings.control_strength != 0
    if not (reads or controls) or not any(reference.strength for reference in references):
        return model
    check_use(adapter, INSTANTID_NODE)
    blocks = check_fits(adapter, live_unet(model.model))
    net = checked_net(inputs.control_net, adapter) if controls else None
    phrases = ()
    if reads and settings.merge == "weighted":
        phrases = read_words(model.model, adapter, inputs.clip, references, "", "standalone")
    check_trained(inputs.analysis, ANTELOPE, adapter.name)
    people = people_of(inputs.analysis, references)
    tokens, empty = _tokens_of_people(adapter, people, settings)
    if reads:
        member = _member(references, settings, adapter, blocks, tokens, empty, phrases)
        model = attach(model, ImagePrompts((member,)))
    if controls:
        model = attach(model, IdentityNets((_net_member(inputs, settings, net, people, tokens, empty),)))
    return model


def _member(references, settings, adapter, blocks, tokens, empty, phrases):
    shared = all(torch.equal(one, empty[0]) for one in empty)
    return ImageMember(
        adapter=weakref.ref(adapter),
        label=INSTANTID_NODE,
        scale=float(settings.scale),
        joint=settings.merge == "joint",
        power=float(settings.merge_power),
        window=settings.window,
        text_gate=False,
        phrases=phrases,
        strengths=strengths_of(references),
        regions=regions_of(references),
        words=tuple(reference.word for reference in references),
        lengths=tuple(len(one) for one in tokens),
        layers=image_layers(blocks, adapter, tokens, empty[0] if shared else empty),
        share_empty=shared,
    )


def _net_member(inputs, settings, net, people, tokens, empty):
    faces = faces_of_people(people, inputs.references)
    if inputs.pose_image is not None:
        faces = faces_of_pose(inputs.analysis, inputs.pose_image, len(people))
    regions = regions_of(inputs.references)
    tell_of_faces_outside(inputs.references, faces, regions)
    return IdentityMember(
        label=INSTANTID_NODE,
        net=patcher_of(net),
        dtype=net.manual_cast_dtype or net.control_model.dtype,
        strength=float(settings.control_strength),
        together=settings.control_passes == "together",
        window=settings.control_window,
        tokens=tuple(tokens),
        empty=tuple(empty),
        faces=tuple(faces),
        strengths=strengths_of(inputs.references),
        regions=regions,
    )


def _tokens_of_people(adapter, people, settings):
    """([image tokens (16, D) of each person], [those of nobody, for each])."""
    tokens, empty = [], []
    for views in people:
        embeddings = torch.stack([view.embedding for view in views])
        if settings.views == "average":
            embeddings = embeddings.mean(0, keepdim=True)
        # the Resampler's answer to nobody depends on how many pictures there are
        nobody = settings.negative_noise * seeded_shares("instantid nobody", embeddings.shape)
        tokens.append(adapter.project(embeddings[None])[0])
        empty.append(adapter.project(nobody[None])[0])
    return tokens, empty
