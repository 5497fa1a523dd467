"""StoryMaker (arXiv 2409.12576): people with their faces, hair, clothes and bodies, up to three, on SDXL.

Its file holds image tokens' matrices and a LoRA for the UNet. One softmax goes over the tokens of the ground and of all
people, whose order tells them apart.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ...kernels.person_picture import on_white, squashed
from ...kernels.story_projection import person_tokens
from ..faces.analysis import as_bytes
from ..faces.face_networks import check_trained
from ..faces.face_views import people_of
from ..host.attach import attach
from ..host.calls import live_unet
from ..host.latents import checked_images
from ..host.messages import input_error, warn_user
from ..host.when import Window
from ..image_adapters.adapter_fit import check_fits
from ..image_adapters.adapter_lora import with_lora
from ..image_adapters.adapter_use import STORYMAKER_NODE, check_use
from ..image_adapters.image_tokens import check_vision
from ..references.reference_views import any_connected, regions_of, strengths_of
from .face_crops import SIDE_OF_CROPS, face_crop, seen
from .faceid import TRAINED
from .image_technique import ImagePrompts
from .story_member import story_member


@dataclass(frozen=True)
class StoryMakerSettings:
    """What one StoryMaker node is set to. Raises ValueError for values that it cannot work with."""

    scale: float = 0.8  # of the image part, 0 is off
    lora_strength: float = 0.8
    window: Window = Window()


@dataclass(frozen=True, eq=False)
class StoryMakerInputs:
    """What is connected to one StoryMaker node beside the MODEL."""

    adapter: object
    analysis: object
    clip_vision: object
    cloth: torch.Tensor | None = None
    references: tuple = ()


def attach_storymaker(model, inputs, settings):
    """The MODEL with the people of the references in its cross-attention, and the adapter's LoRA in its weights.

    inputs: a StoryMakerInputs. Raises ValueError for inputs it cannot work with; the MODEL itself where nothing would
    change.
    """
    references, adapter = inputs.references, inputs.adapter
    if not any_connected(references):
        return model
    check_use(adapter, STORYMAKER_NODE)
    blocks = check_fits(adapter, live_unet(model.model))
    patched = with_lora(model, adapter, settings.lora_strength)
    if settings.scale == 0 or not any(reference.strength for reference in references):
        return patched
    check_vision(adapter, inputs.clip_vision)
    most = adapter.projection.sizes.people
    if len(references) > most:
        raise input_error(
            f"{len(references)} references are connected, {adapter.name} has places for {most}; remove some"
        )
    cloths = _cloths(inputs.cloth, len(references))
    check_trained(inputs.analysis, TRAINED, adapter.name)
    views_of_people = people_of(inputs.analysis, references)
    people = [_tokens_of(inputs, views, cloth) for views, cloth in zip(views_of_people, cloths, strict=True)]
    words = (reference.word for reference in references)
    said = list(zip(strengths_of(references), regions_of(references), words, strict=True))
    member = story_member(adapter, blocks, people, said, scale=settings.scale, window=settings.window)
    return attach(patched, ImagePrompts((member,)))


def body_crop(view):
    """The person of a FaceView on white, squashed to what the encoder takes: (1, 224, 224, 3) in 0..1.

    Raises ValueError, naming the picture by its label, for a mask that is black at the picture's size.
    """
    picture = as_bytes(view.image)
    if view.mask is None:
        warn_user(
            f"{view.label}: it has no mask of the person, so the background of its picture counts as part of the body; "
            "connect a mask that is white on the person"
        )
        return _squashed(picture)
    mask = view.mask
    if tuple(mask.shape) != tuple(picture.shape[:2]):
        mask = F.interpolate(mask[None, None], size=picture.shape[:2], mode="bilinear")[0, 0]
    mask = (mask * 255).round()
    if not (mask > 0).any():
        raise input_error(
            f"{view.label}: its mask is black at the picture's size, so nothing is left of its picture; paint the "
            "person white, or leave the mask unconnected"
        )
    return _squashed(on_white(picture, mask))


def _tokens_of(inputs, views, cloth):
    """(tokens (v, T, D) of each picture of a person, those of nobody (1, T, D)), without a place."""
    adapter, faces, bodies = inputs.adapter, [], []
    for view in views:
        faces.append(seen(adapter, inputs.clip_vision, face_crop(view), view.label))
        body = body_crop(view) if cloth is None else _squashed(as_bytes(cloth))
        bodies.append(seen(adapter, inputs.clip_vision, body, view.label))
    face, body = torch.cat(faces), torch.cat(bodies)
    embeddings = F.normalize(torch.stack([view.embedding for view in views]), dim=-1)
    weights, width = adapter.projection.weights, adapter.width
    nobody = (torch.zeros_like(one[:1]) for one in (embeddings, face, body))
    return person_tokens(embeddings, face, body, weights, width), person_tokens(*nobody, weights, width)


def _squashed(picture):
    return squashed(picture, SIDE_OF_CROPS)[None].float() / 255


def _cloths(cloth, people):
    """Per person a picture of clothes (H, W, 3), None for those who keep their own."""
    pictures = [] if cloth is None else list(checked_images(cloth, "cloth"))
    if len(pictures) > people:
        raise input_error(
            f"cloth has {len(pictures)} pictures for {people} references; connect one for each person, in their order"
        )
    return pictures + [None] * (people - len(pictures))
