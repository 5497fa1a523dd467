"""PerSAM-F's two numbers: how much each of SAM's three masks counts, fitted on one picture (arXiv 2305.03048, 3.3)."""

import comfy.model_management as mm
import torch
import torch.nn.functional as F

# Steps between two looks at whether the user has cancelled.
_LOOK = 10
_STEPS, _RATE, _DECAY, _EPS = 1000, 1e-3, 0.01, 1e-4


def fitted_weights(logits, size, mask):
    """The weights (3,) of three masks (3, H, W) whose sum is most like a mask (Hm, Wm), resized to `size`.

    Computed where the three masks lie; the user may cancel it.
    """
    if tuple(mask.shape) != size:
        mask = F.interpolate(mask[None, None], size, mode="bilinear")[0, 0]
    # the host runs nodes in inference mode, where no gradient can be taken
    with torch.inference_mode(False), torch.enable_grad():
        logits = logits.detach().float().clone().flatten(1)
        wanted = (mask.detach().to(logits.device) >= 0.5).float().clone().flatten()
        pair = torch.full((2,), 1 / 3, device=logits.device, requires_grad=True)
        optimizer = torch.optim.AdamW([pair], lr=_RATE, eps=_EPS, weight_decay=_DECAY)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
        for step in range(_STEPS):
            if step % _LOOK == 0:
                mm.throw_exception_if_processing_interrupted()
            optimizer.zero_grad()
            found = _sum(pair, logits)
            (dice_loss(found, wanted) + focal_loss(found, wanted)).backward()
            optimizer.step()
            schedule.step()
        return torch.cat([1 - pair.sum()[None], pair]).detach().cpu()


def dice_loss(logits, wanted):
    """1 - (2 sum(p y) + 1) / (sum(p) + sum(y) + 1), p the probabilities (n,) of logits, y what is wanted."""
    found = logits.sigmoid()
    return 1 - (2 * (found * wanted).sum() + 1) / (found.sum() + wanted.sum() + 1)


def focal_loss(logits, wanted, alpha=0.25, gamma=2):
    """mean of alpha_y (1 - p_y)^gamma cross entropy, p_y the probability (n,) of what is wanted."""
    entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    right = logits.sigmoid() * wanted + (1 - logits.sigmoid()) * (1 - wanted)
    share = alpha * wanted + (1 - alpha) * (1 - wanted)
    return (share * (1 - right) ** gamma * entropy).mean()


def _sum(pair, logits):
    return (1 - pair.sum()) * logits[0] + pair[0] * logits[1] + pair[1] * logits[2]
