"""Noise predictions and contexts of a training step -> losses; what MagicTailor (arXiv 2410.13370) does beside them."""

import torch
import torch.nn.functional as F

# How late noise around the subject falls to 0 (MagicTailor, arXiv 2410.13370).
GAMMA = 32


def masked_by_picture(out, target, masks):
    """mean over all elements of ((out - target) * m)^2 for each picture: (b,) float32.

    out, target (b, C, h, w); masks (b, 1, h, w). A small mask weighs little: the mean is over the whole picture.
    """
    return ((out.float() - target.float()) * masks).square().flatten(1).mean(1)


def balanced_loss(losses, preserved, concepts, weight):
    """max_c l_c + weight * mean over the other concepts of p_c: the concept that lags learns, the others stay.

    losses (b,): what each picture is off; preserved (b,): how far it has moved from what an average of the weights
    says; both of `masked_by_picture`. concepts: the number of each picture's concept, 0.. without gaps. l_c and p_c are
    means over a concept's pictures. Returns (loss, l (c,)).
    """
    count = max(concepts) + 1
    member = F.one_hot(torch.tensor(concepts, device=losses.device), count).to(losses)
    share = member / member.sum(0)
    of_concept, kept = losses @ share, preserved @ share
    worst = int(of_concept.argmax())
    others = [number for number in range(count) if number != worst]
    loss = of_concept[worst]
    return (loss + weight * kept[others].mean() if others else loss), of_concept


def moved_average(average, learned, decay):
    """{name: decay * average + (1 - decay) * learned}, detached; without an average yet a copy of what was learned."""
    learned = {name: tensor.detach() for name, tensor in learned.items()}
    if average is None:
        return {name: tensor.clone() for name, tensor in learned.items()}
    return {name: decay * average[name] + (1 - decay) * tensor for name, tensor in learned.items()}


def degraded(pixels, masks, noise, step, steps, alpha=0.5):
    """Pictures that are noisy outside of their masks: p + w * noise there, w = alpha (1 - ((step + 1) / steps)^GAMMA).

    pixels and noise (b, C, H, W), pixels in -1..1 as what comes back; masks (b, 1, H, W). Almost all of a training w is
    alpha; it falls to 0 in its last tenth.
    """
    weight = alpha * (1 - ((step + 1) / steps) ** GAMMA)
    noisy = (pixels + weight * noise).clamp(-1, 1)
    return pixels * masks + noisy * (1 - masks)


def context_loss(context, reference, places):
    """1/c * sum over the other tokens of (1 - cos(E_i, E'_i)): what a word does to the rest of a prompt (CoRe,
    arXiv 2408.15914).

    context E, reference E' (T, D): of a prompt with the word and with a class word of as many tokens in its place;
    places: the tokens of the word, the other c are compared.
    """
    others = [row for row in range(len(context)) if row not in set(places)]
    return (1 - F.cosine_similarity(context[others].float(), reference[others].float(), dim=-1)).mean()
