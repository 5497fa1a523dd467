"""What a vision encoder sees of a person: the face, turned upright and cut out of the picture."""

import torch

from ...kernels.face_alignment import aligned, similarity, template
from ..faces.analysis import as_bytes
from ..image_adapters.image_tokens import checked_embeds, zero_pixels
from . import mip_adapter

# The side that the encoders take.
SIDE_OF_CROPS = 224


def face_crop(view):
    """The aligned face of a FaceView (1, 224, 224, 3) in 0..1."""
    matrix = similarity(view.keypoints, template(SIDE_OF_CROPS))
    return aligned(as_bytes(view.image), matrix, SIDE_OF_CROPS).round()[None] / 255


def seen(adapter, clip_vision, picture, label):
    """The hidden states (1, t, E) of a picture (1, H, W, 3); ValueError for an encoder that does not fit."""
    found = clip_vision.encode_image(picture)
    return checked_embeds(adapter, getattr(found, adapter.embed.output, None), label).float().cpu()


def seen_of_nothing(adapter, clip_vision):
    """The hidden states (1, t, E) of pixels that are all zero after normalisation."""
    found = mip_adapter.encode_pixels(clip_vision, zero_pixels(clip_vision))
    return checked_embeds(adapter, getattr(found, adapter.embed.output, None), "the empty picture").float().cpu()


def seen_faces(adapter, clip_vision, views):
    """The hidden states (v, t, E) of the faces of one person's FaceViews."""
    return torch.cat([seen(adapter, clip_vision, face_crop(view), view.label) for view in views])
