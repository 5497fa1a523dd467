"""Keys by content: what tensors, weight patches and a MODEL's weights are, for caches that outlive a sampling run."""

import hashlib
import os
import weakref

import torch
from comfy.weight_adapter import WeightAdapterBase

from .contexts import Contexts
from .hooked_weights import hooks_key


def digest(*parts):
    """A hash of the contents, shapes and dtypes of tensors and Contexts (None counts as an empty tensor)."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, Contexts):
            _hash(state, part.contents)
        elif part is not None:
            _hash_tensor(state, part)
        state.update(b"|")
    return state.digest()


def sampling_digest(sampling):
    """A hash of a model sampling object of the host: what its model predicts, its noise levels, its own settings."""
    state = hashlib.blake2b(digest_size=16)
    kinds = [kind.__name__ for kind in type(sampling).__mro__]
    plain = {name: value for name, value in vars(sampling).items() if isinstance(value, int | float | str | bool)}
    _hash(state, [kinds, plain, dict(sampling.named_buffers())])
    return state.digest()


def values_digest(value):
    """A hash of the contents of tensors in plain values, lists, tuples and dicts of either."""
    state = hashlib.blake2b(digest_size=16)
    _hash(state, value)
    return state.digest()


def rest_digest(*conditionings):
    """A hash of all that CONDITIONINGs hold beside the first text of each and its pooled text; b"" where that is all.

    More texts, strengths, areas and ranges count by content. ControlNets, hooks and what else is an object cannot be
    told so: a conditioning with one is like no other, not even itself.
    """
    rest = []
    for conditioning in conditionings:
        _, first = conditioning[0]
        more = {name: value for name, value in first.items() if name != "pooled_output" and value is not None}
        rest.append([more, *conditioning[1:]])
    if not any(more or others for more, *others in rest):
        return b""
    return values_digest([rest, b"" if _is_plain(rest) else os.urandom(16)])


def _is_plain(value):
    if isinstance(value, dict):
        return all(_is_plain(one) for one in value.values())
    if isinstance(value, tuple | list):
        return all(_is_plain(one) for one in value)
    return value is None or isinstance(value, torch.Tensor | Contexts | str | bytes | int | float)


def patches_digest(patches):
    """A hash of the contents of the host's {key: [patch, ...]}."""
    state = hashlib.blake2b(digest_size=16)
    for key in sorted(patches):
        state.update(key.encode())
        for patch in patches[key]:
            _hash(state, patch)
    return state.digest()


def weights_key(patcher):
    """A hashable key that changes whenever the weights that a MODEL runs with change.

    Covers its weight patches, the weight hooks of the conditioning that is run, and modules injected or replaced by
    other packs. The model itself is not in it: keep one cache per model.
    """
    if patcher is None:
        # nobody has loaded the model through a patcher, so nothing patches it
        return ()
    injections = [one for several in patcher.injections.values() for one in several]
    replaced = [(name, value) for name, value in patcher.object_patches.items() if name.startswith("diffusion_model")]
    return (
        patcher.patches_uuid,
        hooks_key(patcher),
        tuple(_identity(one) for one in injections),
        tuple((name, _identity(value)) for name, value in replaced),
    )


def _hash_tensor(state, tensor):
    state.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    state.update(tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8).numpy())


def _hash(state, value):
    if isinstance(value, torch.Tensor):
        _hash_tensor(state, value)
    elif isinstance(value, Contexts):
        _hash(state, value.contents)
    elif isinstance(value, WeightAdapterBase):
        state.update(type(value).__qualname__.encode())
        _hash(state, value.weights)
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            state.update(str(key).encode())
            _hash(state, value[key])
    elif isinstance(value, tuple | list):
        state.update(b"(")
        for part in value:
            _hash(state, part)
        state.update(b")")
    else:
        state.update(repr(value).encode())
    state.update(b"|")


def _identity(value):
    # a weak reference equals another only while its object lives; an id alone could come back with a new object
    try:
        return weakref.ref(value)
    except TypeError:
        return id(value)
