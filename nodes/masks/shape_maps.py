"""The self-attention maps of the layout pictures asked about last: another point of one costs no sampling."""

from collections import OrderedDict

# Of so many pictures, in so many bytes: common sizes take 4 MB and less, 64 x 64 cells 67 MB.
_MOST, _BYTES = 2, 2**28
_MAPS = OrderedDict()


def shape_map(key, make):
    """What is kept under a key, or else what `make()` gives: (map (n, n) on the CPU, its grid)."""
    found = _MAPS.pop(key, None) or make()
    _MAPS[key] = found
    while len(_MAPS) > _MOST or sum(one.nbytes for one, _ in _MAPS.values()) > _BYTES:
        _MAPS.popitem(last=False)
    return found
