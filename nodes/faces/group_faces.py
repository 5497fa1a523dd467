"""A picture of several people taken apart: one reference per face with its word, crop and region; keypoint pictures."""

import math

import torch
import torch.nn.functional as F

from ...kernels.keypoint_picture import keypoint_picture
from ...kernels.masks import box_mask
from ...kernels.picture_parts import on_white_square
from ..host.choices import check_listed
from ..host.latents import checked_images
from ..host.messages import input_error
from ..references.references_wire import Reference
from .found_faces import area_of, box_of, found_faces, points_of

ORDERS = ("left to right", "largest first")
# A region is the face's box and this share of its sides more on each side: hair, chin and ears.
GROWN = 0.25
# The side of the crops as they are shown.
CROP_SIDE = 512


def face_references(analysis, image, words, order, *, most=0, margin=1.0, strength=1.0):
    """(references, their crops as an IMAGE (n, CROP_SIDE, CROP_SIDE, 3)) of the faces of a picture.

    words: one per face, separated by commas, or none; order: one of ORDERS; most: how many faces per picture at most,
    the largest ones, 0 for all; margin: what a crop shows around the face on each side, in longer sides of its box.
    Raises ValueError for a picture without a face, and for another number of words than of faces.
    """
    check_listed("order", order, ORDERS)
    words = words.strip(" ,\n")
    named = [word.strip() for word in words.split(",")] if words else []
    found = []
    for number, picture in enumerate(checked_images(image, "image"), 1):
        faces = found_faces(analysis, picture, f"picture {number}")
        found += [(face, faces, picture) for face in _chosen(faces, order, most)]
    if named and len(named) != len(found):
        raise input_error(
            f"words has {len(named)} words for {len(found)} faces; enter one per face, {order}, or set max_faces"
        )
    words = named or [""] * len(found)
    references = tuple(
        _reference(face, faces, picture, margin, word=word, strength=strength)
        for word, (face, faces, picture) in zip(words, found, strict=True)
    )
    return references, torch.cat([_shown(reference.image) for reference in references])


def keypoints_of(analysis, image, most=0):
    """(keypoint pictures as an IMAGE, a MASK per face) of the pictures of an IMAGE: `most` faces of each, 0 for all.

    Raises ValueError for a picture without a face.
    """
    pictures, masks = [], []
    for number, picture in enumerate(checked_images(image, "image"), 1):
        size = tuple(picture.shape[:2])
        chosen = _chosen(found_faces(analysis, picture, f"picture {number}"), ORDERS[0], most)
        pictures.append(keypoint_picture([points_of(face) for face in chosen], size))
        masks += [_region(face, size) for face in chosen]
    return torch.stack(pictures).float() / 255, torch.stack(masks)


def _chosen(faces, order, most):
    """The largest faces of a picture, in an order."""
    largest = sorted(faces, key=area_of, reverse=True)[: most or None]
    return largest if order == ORDERS[1] else sorted(largest, key=lambda face: _centre(face)[0])


def _reference(face, faces, picture, margin, **said):
    size = tuple(picture.shape[:2])
    left, top, right, bottom = box_of(face).tolist()
    half = (0.5 + margin) * max(right - left, bottom - top, 1.0)
    x, y = _centre(face)
    edges = [math.floor(x - half), math.floor(y - half), math.ceil(x + half), math.ceil(y + half)]
    start_x, start_y, stop_x, stop_y = (
        min(max(edge, 0), limit) for edge, limit in zip(edges, (*size[::-1], *size[::-1]), strict=True)
    )
    image = picture[start_y:stop_y, start_x:stop_x]
    others = [_centre(other) for other in faces if other is not face]
    mask = None
    # where the crop shows another face too, it must say whose it is
    if any(start_x <= x < stop_x and start_y <= y < stop_y for x, y in others):
        mask = _box((left - start_x, top - start_y, right - start_x, bottom - start_y), tuple(image.shape[:2]))[None]
    cut = (start_y, start_x), size
    return Reference(image[None].clone(), mask=mask, region=_region(face, size)[None], cut=cut, **said)


def _region(face, size):
    left, top, right, bottom = box_of(face).tolist()
    across, down = GROWN * (right - left), GROWN * (bottom - top)
    return _box((left - across, top - down, right + across, bottom + down), size)


def _box(edges, size):
    left, top, right, bottom = edges
    height, width = size
    return box_mask(size, (top / height, left / width, bottom / height, right / width))


def _centre(face):
    left, top, right, bottom = box_of(face).tolist()
    return (left + right) / 2, (top + bottom) / 2


def _shown(image):
    """The picture (1, H, W, 3) in the middle of a white square."""
    square = on_white_square(image).movedim(-1, 1)
    return (
        F.interpolate(square, size=(CROP_SIDE, CROP_SIDE), mode="bilinear", antialias=True).movedim(1, -1).clamp(0, 1)
    )
