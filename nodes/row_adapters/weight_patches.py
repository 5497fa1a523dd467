"""Weight patches of a MODEL, compared by content: what one MODEL has beyond another."""

import torch
from comfy.weight_adapter import WeightAdapterBase


def patches_beyond(base, concept):
    """{key: [patch, ...]} of the patches that `concept` has and `base` has not.

    base, concept: the host's {key: [(strength, value, strength_model, offset, function), ...]}. A value that both have
    at different strengths is left with the difference.
    """
    found = {}
    for key, patches in concept.items():
        shared = list(base.get(key, ()))
        # equal ones first, so that a value which stands there twice meets its like
        rest = [patch for patch in patches if not _taken(shared, patch, same_patch)]
        extra = []
        for patch in rest:
            like = _taken(shared, patch, _same_but_strength)
            extra.append((patch[0] - like[0], *patch[1:]) if like else patch)
        if extra:
            found[key] = extra
    return found


def same_patch(one, two):
    """Whether two patches do the same, by identity first, then by content."""
    return one is two or (one[0] == two[0] and _same_but_strength(one, two))


def same_value(one, two):
    """Whether two values of patches have equal contents."""
    if one is two:
        return True
    if type(one) is not type(two):
        return False
    if isinstance(one, torch.Tensor):
        return one.shape == two.shape and one.dtype == two.dtype and torch.equal(one.cpu(), two.cpu())
    if isinstance(one, WeightAdapterBase):
        return same_value(one.weights, two.weights)
    if isinstance(one, tuple | list):
        return len(one) == len(two) and all(map(same_value, one, two))
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same_value(one[key], two[key]) for key in one)
    return bool(one == two)


def _taken(patches, wanted, same):
    """The first of `patches` that is the same as the wanted one, taken out of the list; None if there is none."""
    for index, patch in enumerate(patches):
        if same(patch, wanted):
            return patches.pop(index)
    return None


def _same_but_strength(one, two):
    return one[2:] == two[2:] and same_value(one[1], two[1])
