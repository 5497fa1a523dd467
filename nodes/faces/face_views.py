"""Which face of each picture of a reference is meant, and what is doubtful about it."""

from dataclasses import dataclass

import torch

from ...kernels.face_projection import EMBEDDING
from ..host.messages import input_error, warn_user
from ..references.reference_views import pictures_of
from .found_faces import area_of, box_of, found_faces, points_of

# Faces with shorter sides than this, in pixels, give little likeness.
LEAST_SIDE = 32


@dataclass(frozen=True, eq=False)
class FaceView:
    """One picture (H, W, 3) of a person, and the face in it that is meant."""

    label: str
    image: torch.Tensor
    mask: torch.Tensor | None  # (Hm, Wm) in 0..1 of the person, as the reference has it
    box: torch.Tensor  # (4,): left, top, right, bottom in pixels
    keypoints: torch.Tensor  # (5, 2) in pixels
    embedding: torch.Tensor  # (512,) as the recognition network gives it


def people_of(analysis, references):
    """Per reference its FaceViews, one per picture.

    Raises ValueError, naming the reference, for a picture without a face and for embeddings that cannot be used.
    """
    people = []
    for number, reference in enumerate(references, 1):
        label, images, masks = pictures_of(reference, number)
        people.append([_view(analysis, image, mask, label) for image, mask in zip(images, masks, strict=True)])
    return people


def _view(analysis, image, mask, label):
    faces = found_faces(analysis, image, label)
    if mask is not None:
        inside = [face for face in faces if _shown(face, image, mask)]
        if not inside:
            raise input_error(
                f"{label}: no face of its picture has its centre inside the mask ({len(faces)} found); paint the "
                "person's face white too"
            )
        faces = inside
    if len(faces) > 1:
        warn_user(
            f"{label}: its picture has {len(faces)} faces, and the largest is used; mark another one with a mask, or "
            "use Add Faces"
        )
    face = max(faces, key=area_of)
    _tell_of_weak(face, image, label)
    return FaceView(label, image, mask, box_of(face), points_of(face), _embedding(face, label))


def _shown(face, image, mask):
    left, top, right, bottom = box_of(face).tolist()
    place = []
    for middle, length, count in zip(
        ((top + bottom) / 2, (left + right) / 2), image.shape[:2], mask.shape, strict=True
    ):
        place.append(min(max(int(middle * count / length), 0), count - 1))
    return bool(mask[tuple(place)] > 0.5)


def _tell_of_weak(face, image, label):
    left, top, right, bottom = box_of(face).tolist()
    height, width = image.shape[:2]
    side = min(right - left, bottom - top)
    cut = left < -1 or top < -1 or right > width or bottom > height
    if side < LEAST_SIDE or cut:
        how = "is cut by the edge" if cut else f"is only {side:.0f} pixels wide"
        warn_user(f"{label}: its face {how}, so the likeness will be weak; use a picture with more of it")


def _embedding(face, label):
    embedding = torch.as_tensor(face.embedding).float().cpu().flatten()
    if len(embedding) != EMBEDDING:
        raise input_error(
            f"{label}: the recognition network gives {len(embedding)} numbers, adapters read {EMBEDDING}; choose "
            "antelopev2 or buffalo_l in Load Face Analysis"
        )
    if not torch.isfinite(embedding).all():
        raise input_error(f"{label}: the recognition network gives NaN or infinite values; download its file again")
    return embedding
