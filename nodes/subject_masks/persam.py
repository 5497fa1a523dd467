"""PerSAM: the mask of the same subject in other pictures, by example (arXiv 2305.03048)."""

import comfy.model_management as mm
import comfy.utils
import torch

from ...kernels.picture_parts import bounds_of
from ..host.latents import batched_mask, bounded_mask, checked_images
from ..host.messages import input_error, warn_user
from .persam_fit import fitted_weights
from .sam_picture import SAMPicture

# Bytes that the image encoder's attention needs on its way, for the host's memory manager.
_ENCODER_BYTES = 3 << 30


def subject_masks(sam, reference_image, reference_mask, images, fit):
    """(MASK (b, H, W) of a subject in pictures, what was found in each in words).

    reference_image (1, Hr, Wr, 3) shows the subject, reference_mask is white on it; images (b, H, W, 3); fit: PerSAM-F,
    which weighs SAM's three masks by what fits the reference. Raises ValueError for a mask that keeps no token.
    """
    if sam is None:
        raise input_error("sam is empty; connect Load SAM")
    reference_image, images = checked_images(reference_image, "reference_image"), checked_images(images, "images")
    mask = batched_mask(bounded_mask(reference_mask, "reference_image", "mask"))
    if mask.ndim != 3:
        raise input_error(f"reference_mask has the shape {tuple(mask.shape)}; connect a MASK (batch, H, W)")
    mm.load_models_gpu([sam.patcher], memory_required=_ENCODER_BYTES, force_full_load=True)
    model, device = sam.patcher.model.sam, sam.patcher.load_device
    progress = comfy.utils.ProgressBar(1 + len(images))
    reference = SAMPicture(model, reference_image[0], device)
    tokens = reference.tokens_of(mask[:1])
    if not len(tokens):
        if mask[0].min() == mask[0].max():
            raise input_error(
                "reference_mask has one value everywhere, so it marks no subject; paint the subject white in it"
            )
        raise input_error("the subject is too small for SAM's 64x64 grid; crop the picture closer")
    progress.update(1)
    if fit:
        vector = (tokens.max(0).values + tokens.mean(0)) / 2
        weights = fitted_weights(*_weighed(reference, vector), mask[0])
        search = _Fitted(vector, weights)
    else:
        search = _Guided(tokens.mean(0))
    found, report = [], []
    for number, image in enumerate(images, 1):
        mm.throw_exception_if_processing_interrupted()
        logits, score = search.found(SAMPicture(model, image, device), f"picture {number}")
        found.append((logits > 0).float().cpu())
        report.append(f"picture {number}: score {score:.3f}, {float(found[-1].mean()):.1%} of the picture")
        progress.update(1)
    return torch.stack(found), "\n".join([*search.report, *report])


class _Guided:
    """PerSAM: a point on the subject, one beside it, and attention that looks where the subject may be."""

    report = ()

    def __init__(self, target):
        self.target = target

    def found(self, picture, label):
        similarity = picture.similarity(self.target)
        points, labels = [_place(similarity.argmax(), picture), _place(similarity.argmin(), picture)], [1, 0]
        guide = picture.guidance(similarity), self.target
        masks, scores = picture.masks(points, labels, guide=guide)
        first = masks[:1], scores[0]
        second = _best(*picture.masks(points, labels, logits=first[0][None]))
        return _refined(picture, points, labels, second, first, label)


class _Fitted:
    """PerSAM-F: a point on the subject, and SAM's three masks weighed."""

    def __init__(self, vector, weights):
        self.vector, self.weights = vector, weights
        self.report = (f"weights of SAM's masks: {', '.join(f'{float(w):.3f}' for w in weights)}",)

    def found(self, picture, label):
        similarity = picture.similarity(self.vector)
        points, labels = [_place(similarity.argmax(), picture)], [1]
        masks, scores = picture.masks(points, labels)
        first = torch.einsum("i,ihw->hw", self.weights.to(masks), masks[1:])[None], scores[1:].max()
        box = _box(picture, first[0])
        if box is None:
            return _told(picture, first, label)
        second = _best(*picture.masks(points, labels, box=box, logits=first[0][None]))
        return _refined(picture, points, labels, second, first, label)


def _weighed(reference, vector):
    """(the three masks (3, H, W) of the reference as logits, its size) by its own point."""
    similarity = reference.similarity(vector)
    masks, _ = reference.masks([_place(similarity.argmax(), reference)], [1])
    return reference.whole(masks[None, 1:])[0], reference.size


def _refined(picture, points, labels, mask, earlier, label):
    """(logits (H, W), score) of a mask by its own box; an empty mask gives way to the earlier one."""
    box = _box(picture, mask[0])
    if box is None:
        return _told(picture, earlier, label)
    best = _best(*picture.masks(points, labels, box=box, logits=mask[0][None]))
    if _box(picture, best[0]) is None:
        return _told(picture, mask, label)
    return picture.whole(best[0][None])[0, 0], best[1]


def _told(picture, mask, label):
    warn_user(
        f"{label}: one refinement step gave an empty mask, so the previous mask is used; check that the picture "
        "shows the subject"
    )
    return picture.whole(mask[0][None])[0, 0], mask[1]


def _best(masks, scores):
    """(the best of the three masks (1, 256, 256), its score)"""
    number = 1 + int(scores[1:].argmax())
    return masks[number : number + 1], scores[number]


def _place(index, picture):
    """A pixel of the picture as (x, y)."""
    return [float(int(index) % picture.size[1]), float(int(index) // picture.size[1])]


def _box(picture, logits):
    """[x_min, y_min, x_max, y_max] of a mask (1, 256, 256) in the picture's pixels, None if it is empty."""
    kept = picture.whole(logits[None])[0, 0] > 0
    if not kept.any():
        return None
    rows, columns = bounds_of(kept)
    return [float(edge) for edge in (columns.start, rows.start, columns.stop - 1, rows.stop - 1)]
