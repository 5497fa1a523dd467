"""Shares of pictures that came out right, means, and differences of paired ones, each with its 95 % interval."""

import math
import statistics

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
    return mean, mean - half, mean + half, _chance(gained, lost)


def mean(values):
    """(mean, low, high) of a list of numbers (normal interval)."""
    middle = statistics.fmean(values)
    half = Z95 * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return middle, middle - half, middle + half


def mean_difference(one, other):
    """(mean of one - other, low, high, p) of two lists of numbers about the same things (exact sign test)."""
    pairs = list(zip(one, other, strict=True))
    return *mean([a - b for a, b in pairs]), _chance(sum(a > b for a, b in pairs), sum(a < b for a, b in pairs))


def _chance(gained, lost):
    """How likely two counts lie as far apart by chance, or further, if either is as likely."""
    tail = sum(math.comb(gained + lost, k) for k in range(min(gained, lost) + 1)) / 2 ** (gained + lost)
    return min(1.0, 2 * tail)
