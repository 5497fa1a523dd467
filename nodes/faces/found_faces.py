"""The faces of a picture, as numbers whatever gave them; none is an error."""

import comfy.model_management
import torch

from ..host.messages import input_error
from . import analysis as face_analysis


def found_faces(analysis, image, label):
    """All faces of a picture (H, W, 3); ValueError, naming it, if there is none."""
    comfy.model_management.throw_exception_if_processing_interrupted()
    faces = list(face_analysis.faces_of(analysis, image))
    if not faces:
        sizes = ", ".join(str(size) for size in face_analysis.SIZES)
        raise input_error(
            f"{label}: no face was found in its picture (looked for at {sizes} pixels); use a larger face that is less "
            "turned away, or crop the picture to it"
        )
    return faces


def box_of(face):
    """(4,): left, top, right, bottom of a face in pixels."""
    return torch.as_tensor(face.box).float().cpu().flatten()


def points_of(face):
    """The five points (5, 2) of a face in pixels."""
    return torch.as_tensor(face.keypoints).float().cpu().reshape(-1, 2)


def area_of(face):
    """The area of a face's box in pixels."""
    left, top, right, bottom = box_of(face).tolist()
    return (right - left) * (bottom - top)
