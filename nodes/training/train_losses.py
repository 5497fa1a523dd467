"""The losses of one step, as parts with names."""

from dataclasses import dataclass

import torch

from ...kernels.training_losses import balanced_loss, masked_by_picture
from ...kernels.word_maps import level_losses, quarter_losses


@dataclass(frozen=True)
class LossSettings:
    """What a training minimises.

    noise: "area" (a mask counts by its area, without one everything), "picture" (a small mask weighs little), "balance"
    (as "picture" for warm_up steps, then of several concepts the one that lags, while the others stay); maps: "",
    "quarter" or "levels".
    """

    noise: str = "area"
    prior_weight: float = 0.0
    maps: str = ""
    attention_weight: float = 0.0
    full_identity: bool = False
    pull: float = 0.0
    context: float = 0.0
    warm_up: int = 0
    preserve: float = 0.2


def by_area(out, target, masks):
    """mean over pictures of (sum over channels and cells of (out - target)^2 m) / sum m; without masks the plain mean.

    out, target (b, C, h, w); masks (b, 1, h, w) or None.
    """
    squares = (out.float() - target.float()).square()
    if masks is None:
        return squares.mean()
    masks = masks.to(squares)
    return ((squares * masks).sum((1, 2, 3)) / masks.sum((1, 2, 3))).mean()


def noise_loss(settings, out, target, batch, balanced=False, average=None):
    """{part: loss} of the pictures' rows.

    balanced: whether a balance among concepts is past its warm-up; average: what an average of the weights predicts of
    the pictures then, or None as long as there is none.
    """
    masks = None if batch.masks is None else batch.masks.to(out)
    if settings.noise == "area":
        return {"noise": by_area(out, target, masks)}
    masks = torch.ones_like(out[:, :1]) if masks is None else masks
    off = masked_by_picture(out, target, masks)
    if not balanced:
        return {"noise": off.mean()}
    moved = masked_by_picture(out, average, masks) if average is not None else torch.zeros_like(off)
    loss, of_concept = balanced_loss(off, moved, batch.concepts, settings.preserve)
    return {"noise": loss, "of_concept": of_concept.detach(), "preserve": (loss - of_concept.max()).detach()}


def attention_loss(settings, maps, batch, quarter):
    """The weighted loss of the words' maps, 0-dimensional, or None where none can be had.

    maps: {grid: [(b, n, w)]}; quarter: the grid of the quarter. Quarter: the sum over a picture's words, the mean over
    pictures with words that are held to a region.
    """
    if settings.maps == "levels":
        found = level_losses(maps, batch.regions, settings.full_identity)
        return None if found is None else settings.attention_weight * found
    held, own = [row for row, words in enumerate(batch.shown) if words], maps[quarter]
    if len(held) < len(batch.shown):
        # before they are divided by their maximum: those of no word have none
        own = [layer[held] for layer in own]
    losses = quarter_losses(own, batch.regions, quarter)
    return settings.attention_weight * losses.sum(1).mean()


def loss_of_pull(rows, starts):
    """mean over all tokens of |row - start + 1e-6|_2: the small number keeps the gradient where both are equal."""
    return torch.cat([(row - start + 1e-6).norm(dim=-1) for row, start in zip(rows, starts, strict=True)]).mean()
