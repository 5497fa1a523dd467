"""Pictures in the order of their likeness to a text or to references, by CLIP's shared space (arXiv 2501.15641)."""

import torch
import torch.nn.functional as F

from ..host.clip_text import encoded
from ..host.latents import checked_images
from ..host.messages import input_error

RANKED_BY = ("text", "references", "mean")
# Pictures that each line of the text picks; a picture is picked once.
PICKED = 3


def ranked(clip_vision, images, lines, by, clip=None, references=None):
    """(IMAGE, best first; their scores in words) of pictures.

    images (b, H, W, 3); lines: the texts; by: one of RANKED_BY; references: pictures (each (b, H, W, 3)). By text, each
    of several lines picks the pictures most like it, and the result is what they picked, in turn. Raises ValueError
    for inputs that are missing and for a clip and a clip_vision of other widths.
    """
    images = checked_images(images, "images")
    if by != "references" and not lines:
        raise input_error(f"text is empty; write what the pictures should show, to rank them by {by}")
    if by != "references" and clip is None:
        raise input_error(f"clip is not connected; connect the CLIP that belongs to clip_vision, to rank by {by}")
    if by != "text" and not references:
        raise input_error(
            "references are not connected, or all of them have strength 0; connect references or reference_images, to "
            f"rank by {by}"
        )
    features = image_features(clip_vision, images)
    texts = None if by == "references" else torch.cat([text_feature(clip, line) for line in lines])
    if texts is not None and texts.shape[1] != features.shape[1]:
        raise input_error(
            f"clip makes vectors of {texts.shape[1]}, clip_vision of {features.shape[1]}; they must be of one CLIP: "
            "ViT-bigG with SDXL's, ViT-H with SD2.x's, ViT-L with a clip_l file"
        )
    if by == "text" and len(lines) > 1:
        return _picked(images, features @ texts.T, lines)
    scores = {}
    if by != "references":
        scores["text"] = (features @ texts.T).mean(1)
    if by != "text":
        shown = torch.cat([image_features(clip_vision, checked_images(one, "references")) for one in references])
        scores["references"] = (features @ shown.T).mean(1)
    score = sum(scores.values()) / len(scores)
    order = score.argsort(descending=True, stable=True)
    report = [f"{rank}. picture {i + 1}: {score[i]:.4f}" for rank, i in enumerate(order.tolist(), 1)]
    return images[order], "\n".join(report)


def picks(scores, count=PICKED):
    """For each text, the pictures by its scores (pictures, texts), those that an earlier text picked left out."""
    taken, found = set(), []
    for column in scores.T:
        order = [i for i in column.argsort(descending=True, stable=True).tolist() if i not in taken]
        found.append(order)
        taken |= set(order[:count])
    return found


def _picked(images, scores, lines):
    chosen, report = [], []
    for number, (line, order) in enumerate(zip(lines, picks(scores), strict=True)):
        best = order[:PICKED]
        # a text for which too few pictures are left repeats its own
        chosen += [best[i % len(best)] for i in range(PICKED)] if best else []
        said = ", ".join(f"picture {i + 1}: {scores[i, number]:.4f}" for i in best)
        report.append(f'"{line}": {said or "no picture is left"}')
    return images[chosen], "\n".join(report)


def image_features(clip_vision, images):
    """Normalised features (b, D) of pictures (b, H, W, 3) in the space that CLIP shares with texts.

    Raises ValueError for an encoder without that space and for features that are not numbers.
    """
    if clip_vision is None:
        raise input_error("clip_vision is empty; connect Load CLIP Vision")
    found = [getattr(clip_vision.encode_image(image[None]), "image_embeds", None) for image in images]
    if any(one is None or one.ndim != 2 for one in found):
        raise input_error("clip_vision has no image_embeds, so it shares no space with texts; load a CLIP vision model")
    return _unit(torch.cat(found), "clip_vision")


def text_feature(clip, text):
    """The normalised pooled vector (1, D) of a text; ValueError for a text encoder without one."""
    pooled = encoded(clip, text)[1].get("pooled_output")
    if pooled is None:
        raise input_error("clip makes no pooled vector; connect the CLIP of an SDXL or SD2.x checkpoint")
    return _unit(pooled, "clip")


def _unit(features, name):
    features = features.float().cpu()
    if not torch.isfinite(features).all():
        raise input_error(f"{name} produced NaN or infinite values; download its file again")
    return F.normalize(features, dim=1)
