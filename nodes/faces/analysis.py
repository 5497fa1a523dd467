"""All that face networks say of a picture: where its faces are, and whose."""

from functools import cached_property

import torch

from ...kernels.face_alignment import aligned, similarity, template
from ..host.messages import input_error

# Sides of the square that a picture is fitted into, one after the other: a face that fills the picture is found at
# smaller ones only.
SIZES = (640, 512, 384, 256, 128)
# Nothing of a face lies further off than so many longer sides of its picture.
FAR = 4


class Face:
    """One face in a picture: box (left, top, right, bottom), keypoints (5, 2) as (x, y), both in pixels, and score.

    The points are the eye at the left of the picture, the other eye, the nose, the corners of the mouth at its left and
    its right.
    """

    def __init__(self, box, keypoints, score, recognised):
        self.box, self.keypoints, self.score = box, keypoints, score
        self._recognised = recognised

    @cached_property
    def embedding(self):
        """What the recognition network gives (512,), computed when somebody asks."""
        return self._recognised(self.keypoints)


def faces_of(analysis, image):
    """The faces of a picture (H, W, 3) in 0..1, or of the first of (b, H, W, 3), by falling score.

    ValueError for networks that fail on it.
    """
    image = image[0] if image.ndim == 4 else image
    picture = as_bytes(image)

    def detected():
        for size in fixed_sizes(analysis.detector) or SIZES:
            boxes, points = analysis.detector.detect(_blue_first(picture), input_size=(size, size))
            if len(boxes):
                return torch.from_numpy(boxes).float(), torch.from_numpy(points).float()
        return torch.zeros(0, 5), torch.zeros(0, 5, 2)

    def recognised(keypoints):
        def embedding():
            side = int(analysis.recogniser.input_size[0])
            crop = aligned(picture, similarity(keypoints, template(side)), side).round().byte()
            return torch.from_numpy(analysis.recogniser.get_feat(_blue_first(crop))).float().flatten()

        return _answer(embedding, analysis, "recognition")

    boxes, points = _answer(detected, analysis, "detection")
    found = zip(boxes, points, strict=True)
    return tuple(Face(box[:4], five, float(box[4]), recognised) for box, five in found if _may_be(box, five, picture))


def _answer(ask, analysis, kind):
    """What a network gives; ValueError where it turns out to be another than its inputs and outputs say."""
    try:
        return ask()
    # whatever a foreign network runs into
    except Exception as error:
        raise input_error(
            f"the {kind} network of {analysis.name} failed on a picture ({type(error).__name__}), so it is not one of "
            "insightface's networks, or it is damaged; download its file again or choose another pack"
        ) from error


def _may_be(box, points, picture):
    """Whether a find can be a face: numbers, in or about the picture."""
    limit = FAR * max(picture.shape[:2])
    return all(bool(torch.isfinite(t).all()) and bool((t.abs() <= limit).all()) for t in (box, points))


def fixed_sizes(detector):
    """The one size that a detection network takes, () for one that takes any."""
    height, width = detector.session.get_inputs()[0].shape[2:4]
    return (height,) if isinstance(height, int) and height == width else ()


def as_bytes(image):
    """A picture (H, W, 3) in 0..1 as uint8, cut and not rounded: what face networks were trained with."""
    return (image.detach().float().cpu() * 255).clamp(0, 255).byte()


def _blue_first(picture):
    return picture.flip(-1).contiguous().numpy()
