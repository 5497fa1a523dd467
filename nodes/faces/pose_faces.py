"""The faces of a pose picture: where in the result each person's face shall stand."""

from dataclasses import dataclass

import torch

from ..host.latents import checked_images
from ..host.messages import input_error
from .found_faces import area_of, box_of, found_faces, points_of


@dataclass(frozen=True, eq=False)
class PlacedFace:
    """The five points (5, 2) of a face in pixels of a picture of a size (H, W), which stands for the result."""

    points: torch.Tensor
    size: tuple

    def at(self, size):
        """The points in pixels of a picture of another size."""
        return self.points * torch.tensor([size[1] / self.size[1], size[0] / self.size[0]])


def faces_of_pose(analysis, image, people):
    """A PlacedFace per person.

    image: an IMAGE with one picture, whose largest faces are taken from left to right in the order of the chain, or
    with one picture per person. Raises ValueError for fewer faces than people.
    """
    images = checked_images(image, "pose_image")
    if len(images) == people:
        return [_placed(max(found_faces(analysis, one, "pose_image"), key=area_of), one) for one in images]
    if len(images) > 1:
        raise input_error(
            f"pose_image has {len(images)} pictures for {people} references; connect one picture with a face for each, "
            "or one picture per reference"
        )
    faces = sorted(found_faces(analysis, images[0], "pose_image"), key=area_of, reverse=True)
    if len(faces) < people:
        raise input_error(
            f"pose_image shows {len(faces)} face(s), but {people} references are connected; use a picture with a face "
            "for each of them"
        )
    chosen = sorted(faces[:people], key=lambda face: float(box_of(face)[0] + box_of(face)[2]))
    return [_placed(face, images[0]) for face in chosen]


def faces_of_people(people, references):
    """A PlacedFace per person: where the face stands in the first of the person's own pictures, or in the larger
    picture that this one was cut out of.
    """
    return [_own(views[0], reference.cut) for views, reference in zip(people, references, strict=True)]


def _own(view, cut):
    corner, size = cut or ((0, 0), tuple(view.image.shape[:2]))
    return PlacedFace(view.keypoints + torch.tensor(corner[::-1]), size)


def _placed(face, image):
    return PlacedFace(points_of(face), tuple(image.shape[:2]))
