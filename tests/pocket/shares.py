"""Shares of pictures that came out right, and differences of paired ones, each with its 95 % interval."""

import math

Z95 = 1.959964


def share(said):
    """(share, low, high) of a list of booleans (interval: Wilson 1927)."""
    n, p = len(said), sum(said) / len(said)
    middle = (p + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n * n))
    return p, max(0.0, middle - half), min(1.0, middle + half)


def difference(one, other):
    """(mean of one - other, low, high, p) of two lists of booleans about the same things (McNemar's exact test)."""
    n = len(one)
    gained = sum(a and not b for a, b in zip(one, other, strict=True))
    lost = sum(b and not a for a, b in zip(one, other, strict=True))
    mean, changed = (gained - lost) / n, gained + lost
    half = Z95 * math.sqrt(max(changed - (gained - lost) ** 2 / n, 0)) / n
    tail = sum(math.comb(changed, k) for k in range(min(gained, lost) + 1)) / 2**changed
    return mean, mean - half, mean + half, min(1.0, 2 * tail)
