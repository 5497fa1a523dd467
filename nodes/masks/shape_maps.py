"""The self-attention maps of the layout pictures asked about last: another point of one costs no sampling."""

from collections import OrderedDict

# Of so many pictures; a map of 64 x 64 cells takes 67 MB, those of common sizes take 4 MB and less.
_MOST = 2
_MAPS = OrderedDict()


def shape_map(key, make):
    """What is kept under a key, or else what `make()` gives: (map (n, n) on the CPU, its grid)."""
    found = _MAPS.pop(key, None) or make()
    _MAPS[key] = found
    while len(_MAPS) > _MOST:
        _MAPS.popitem(last=False)
    return found
