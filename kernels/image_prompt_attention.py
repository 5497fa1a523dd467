"""Image-prompt branches of a cross-attention: tokens of pictures beside the text, each object in its own place."""

import math

import torch
from einops import rearrange

# Stands for the logarithm of 0: below every map, and still a number where all regions are empty.
_NEVER = -1e30


def object_maps(q, phrase_k, counts, *, heads):
    """ln m_i(p): how strongly image position p belongs to object i, as each object's phrase sees the picture.

    m_i(p) = mean over heads and the L_i tokens of phrase i of softmax over the POSITIONS p of q(p)·phrase_k/√d.
    q (b, n, c); phrase_k (1 or b, sum of L_i, c), the text keys of the phrases' tokens one phrase after another;
    counts: L_i of each. Returns (b, r, n) float32, each map sums to 1 over p. In the log domain, so that peaky maps
    never become 0/0. MIP-Adapter (arXiv 2409.17920), object maps of its published code.
    """
    d = q.shape[-1] // heads
    q, phrase_k = (rearrange(t.float(), "b n (h d) -> b h n d", h=heads) for t in (q, phrase_k))
    at_positions = (phrase_k * d**-0.5 @ q.mT).log_softmax(-1)
    return torch.stack(
        [
            of_phrase.logsumexp((1, 2)) - math.log(heads * of_phrase.shape[2])
            for of_phrase in at_positions.split(counts, 2)
        ],
        1,
    )


def merge_weights(log_maps, *, power=1.0, regions=None):
    """w_i(p) = m_i(p)^power·R_i(p) / Σ_j m_j(p)^power·R_j(p) · max_j R_j(p): the objects' shares, a convex mix.

    log_maps (b, r, n): ln m_i; regions R (r, n) in 0..1 or None for all ones, 0 where every region is empty.
    Power 1 without regions is MIP-Adapter (arXiv 2409.17920); a higher one assigns harder, 0 mixes equally.
    Returns (b, r, n) float32.
    """
    log_shares = power * log_maps.float()
    if regions is None:
        return log_shares.softmax(1)
    return (log_shares + regions.log().clamp(min=_NEVER)).softmax(1) * regions.amax(0)


def shared_weight(strengths, regions=None):
    """The weight of image tokens that all objects share, as unconditional rows do: max_j R_j · Σ R_i·k_i / Σ R_i.

    strengths k (r,); regions (r, n) or None. Returns (n,), or () without regions: the mean of k.
    """
    if regions is None:
        return strengths.mean()
    return regions.amax(0) * (strengths @ regions) / regions.sum(0).clamp(min=torch.finfo(torch.float32).tiny)


def text_gate(text, vector):
    """g(p) = sigmoid(u·text(p)) / mean over p of the same: more image where the text attention asks for it.

    text (b, n, c): the text attention before the output projection; vector u (1, c). Returns (b, n) float32 of mean 1.
    MIP-Adapter (arXiv 2409.17920), `text_to_weight` of its published code.
    """
    gate = (text @ vector.to(text).mT)[..., 0].float().sigmoid()
    return gate / gate.mean(1, keepdim=True)


def image_probabilities(q, k, *, heads, joint=False, log_regions=None):
    """softmax over image tokens of q·k/√d: one softmax per picture, or a joint one over the tokens of all.

    q (b, n, c); k (r, t, c) shared by the batch or (b, r, t, c). joint: the softmax of an IP-Adapter with concatenated
    tokens, log_regions (r, n) then added to the logits. Returns (b, h, n, r, t) float32.
    """
    r, t, c = k.shape[-3:]
    d = c // heads
    q = rearrange(q, "b n (h d) -> b h n d", h=heads)
    k = rearrange(k.reshape(-1, r * t, c) * d**-0.5, "b m (h d) -> b h d m", h=heads)
    logits = (q @ k).float().unflatten(-1, (r, t))
    if not joint:
        return logits.softmax(-1)
    if log_regions is not None:
        logits = logits + log_regions.mT[:, :, None].clamp(min=_NEVER)
    return logits.flatten(-2).softmax(-1).view_as(logits)


def image_values(probabilities, v, factors):
    """Σ_i f_i(p)·Σ_t P_i(p, t)·v_i(t): the values of all pictures in one product, nothing stored per picture.

    probabilities (b, h, n, r, t); v (r, t, c) or (b, r, t, c); factors f, broadcast to (b, r, n).
    Returns (b, n, c) in the dtype of v, before the output projection.
    """
    r, t, c = v.shape[-3:]
    heads = probabilities.shape[1]
    weighted = (probabilities * factors.mT[..., None, :, :, None]).flatten(-2).to(v.dtype)
    v = rearrange(v.reshape(-1, r * t, c), "b m (h d) -> b h m d", h=heads)
    return rearrange(weighted @ v, "b h n d -> b n (h d)")
