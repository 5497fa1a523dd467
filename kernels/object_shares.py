"""Where each object of an image prompt stands: its share at each position, from how a phrase sees the picture."""

import math

import torch

# Stands for the logarithm of 0: below every map, and still a number where all regions are empty.
NEVER = -1e30


def object_maps(q, phrase_k, counts, *, heads):
    """ln m_i(p): how strongly image position p belongs to object i, as each object's phrase sees the picture.

    m_i(p) = mean over heads and the L_i tokens of phrase i of softmax over the POSITIONS p of q(p)·phrase_k/√d.
    q (b, n, c); phrase_k (1 or b, sum of L_i, c), the text keys of the phrases' tokens one phrase after another;
    counts: L_i of each. Returns (b, r, n) float32, each map sums to 1 over p. In the log domain, so that peaky maps
    never become 0/0. MIP-Adapter (arXiv 2409.17920), object maps of its published code.
    """
    found = _at_positions(q, phrase_k, heads)
    if len(set(counts)) == 1:
        maps = found.unflatten(1, (len(counts), -1)).logsumexp((0, 2)) - math.log(heads * counts[0])
    else:
        each = zip(found.split(counts, 1), counts, strict=True)
        maps = torch.stack([part.logsumexp((0, 1)) - math.log(heads * count) for part, count in each])
    return maps.transpose(0, 1)


def merge_weights(log_maps, *, power=1.0, regions=None):
    """w_i(p) = m_i(p)^power·R_i(p) / Σ_j m_j(p)^power·R_j(p) · max_j R_j(p): the objects' shares, a convex mix.

    log_maps (b, r, n): ln m_i; regions R (r, n) in 0..1 or None for all ones, 0 where every region is empty.
    Power 1 without regions is MIP-Adapter (arXiv 2409.17920); a higher one assigns harder, 0 mixes equally.
    Returns (b, r, n) float32.
    """
    log_shares = power * log_maps.float()
    if regions is None:
        return log_shares.softmax(1)
    return (log_shares + regions.log().clamp(min=NEVER)).softmax(1) * regions.amax(0)


def object_shares(q, phrase_k, counts, *, heads, power=1.0, regions=None):
    """merge_weights of object_maps: (b, r, n) float32; in fewer operations where the power is 1.

    With that power m_i / Σ_j m_j is what the tokens of phrase i take, in all heads, of one softmax over the tokens of
    all phrases.
    """
    if power != 1:
        return merge_weights(object_maps(q, phrase_k, counts, heads=heads), power=power, regions=regions)
    found = _at_positions(q, phrase_k, heads)
    equal = len(set(counts)) == 1
    if not equal:
        sizes = torch.tensor([count for count in counts for _ in range(count)], device=q.device)
        found = found - sizes.log()[:, None, None]
    if regions is not None:
        found = found + _of_tokens(regions.log().clamp(min=NEVER), counts)[:, None]
    of_tokens = found.flatten(0, 1).softmax(0).unflatten(0, (heads, -1))
    if equal:
        shares = of_tokens.unflatten(1, (len(counts), -1)).sum((0, 2))
    else:
        shares = torch.stack([part.sum((0, 1)) for part in of_tokens.split(counts, 1)])
    shares = shares.transpose(0, 1)
    return shares if regions is None else shares * regions.amax(0)


def shared_weight(strengths, regions=None):
    """The weight of image tokens that all objects share, as unconditional rows do: max_j R_j · Σ R_i·k_i / Σ R_i.

    strengths k (r,); regions (r, n) or None. Returns (n,), or () without regions: the mean of k.
    """
    if regions is None:
        return strengths.mean()
    return strengths @ equal_shares(regions)


def equal_shares(regions):
    """w_i(p) = R_i(p) max_j R_j(p) / sum_j R_j(p): objects that no word tells apart, as in unconditional rows.

    regions R (r, n) in 0..1; 0 where every region is empty.
    """
    return regions * regions.amax(0) / regions.sum(0).clamp(min=torch.finfo(torch.float32).tiny)


def _at_positions(q, phrase_k, heads):
    """ln softmax over the positions p of q(p)·phrase_k/√d: (h, sum of L_i, b, n) float32."""
    b, n, c = q.shape
    d = c // heads
    q, phrase_k = (t.float().unflatten(-1, (heads, d)) for t in (q, phrase_k))
    if len(phrase_k) == 1:
        # the factor inside of the product
        k, q = phrase_k[0].transpose(0, 1), q.flatten(0, 1).permute(1, 2, 0)
        logits = torch.baddbmm(q.new_empty(1, 1, 1), k, q, beta=0, alpha=d**-0.5).unflatten(-1, (b, n))
    else:
        logits = (phrase_k.transpose(1, 2) @ q.permute(0, 2, 3, 1) * d**-0.5).permute(1, 2, 0, 3)
    return logits.log_softmax(-1)


def _of_tokens(values, counts):
    """One value per object (r, n) as one per token (sum of L_i, n)."""
    return torch.cat([row.expand(count, -1) for row, count in zip(values, counts, strict=True)])
