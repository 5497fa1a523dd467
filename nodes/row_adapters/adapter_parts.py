"""The additive adapters of the host in a few forms that can be computed beside a layer, without its weight."""

from dataclasses import dataclass, replace

import torch
from comfy.weight_adapter import WeightAdapterBase
from comfy.weight_adapter.loha import LoHaAdapter
from comfy.weight_adapter.lokr import LoKrAdapter
from comfy.weight_adapter.lora import LoRAAdapter

from ...kernels.row_adapters import hadamard_factors
from .krona_adapter import KronAAdapter, crossed_part


class NotAdditiveError(Exception):
    """A patch that needs the weight itself; says which kind it is."""


@dataclass(frozen=True, eq=False)
class LowRank:
    """scale * up . down: down (r, n) with n = i * p * q flattened, up (o, r)."""

    down: torch.Tensor
    up: torch.Tensor
    scale: float


@dataclass(frozen=True, eq=False)
class Hadamard:
    """scale * (a . b) * (c . d), elementwise: a, c (o, r), b, d (r, n)."""

    a: torch.Tensor
    b: torch.Tensor
    c: torch.Tensor
    d: torch.Tensor
    scale: float

    def low_rank(self):
        """The same as a LowRank where that costs less than the whole weight, else None."""
        rank, outputs, inputs = self.a.shape[1] * self.c.shape[1], self.a.shape[0], self.b.shape[1]
        if rank * (outputs + inputs) >= outputs * inputs:
            return None
        factors = (t.float() for t in (self.a, self.b, self.c, self.d))
        return LowRank(*hadamard_factors(*factors), self.scale)


@dataclass(frozen=True, eq=False)
class Kronecker:
    """scale * kron(left, right): left (o1, i1), right (o2, i2) or (o2, i2, p, q)."""

    left: torch.Tensor
    right: torch.Tensor
    scale: float


@dataclass(frozen=True, eq=False)
class Dense:
    """scale * weight, of the shape of the layer's own."""

    weight: torch.Tensor
    scale: float


@dataclass(frozen=True, eq=False)
class Vector:
    """scale * vector on the bias, or (gain) on the gain of a norm."""

    vector: torch.Tensor
    scale: float
    gain: bool = False


def weight_shape(module):
    """The shape of a layer's weight, read from the layer and not from its weight, which may be away or quantized.

    None for a module that has no additive form here.
    """
    if isinstance(module, torch.nn.LayerNorm | torch.nn.GroupNorm):
        return tuple(getattr(module, "normalized_shape", None) or (module.num_channels,))
    if hasattr(module, "in_features"):
        return module.out_features, module.in_features
    if isinstance(module, torch.nn.Conv2d) and module.groups == 1:
        return module.out_channels, module.in_channels, *module.kernel_size
    return None


def part_of(patch, module, is_bias):
    """One of the forms above for one of the host's patches; None for one that changes nothing.

    Raises NotAdditiveError for patches that need the weight itself. One of the wrong shape changes nothing,
    as in the host.
    """
    strength, value, strength_model, offset, function = patch
    if strength_model != 1.0:
        raise NotAdditiveError("a blend of weights")
    if offset is not None or function is not None or isinstance(value, list):
        raise NotAdditiveError("a patch on a part of a weight")
    shape = weight_shape(module)
    if shape is None:
        raise NotAdditiveError(f"a patch of a {type(module).__name__}")
    if is_bias:
        shape = shape[:1]
    if isinstance(value, WeightAdapterBase) and not strength:
        return None
    if type(value) in _ADAPTERS and len(shape) > 1:
        part = _ADAPTERS[type(value)](value.weights, shape)
        return replace(part, scale=part.scale * strength) if part else None
    if isinstance(value, tuple) and (len(value) == 1 or value[0] == "diff"):
        diff, *more = value if len(value) == 1 else value[1]
        return _diff(diff, more, shape, strength, is_bias)
    raise NotAdditiveError(
        getattr(value, "name", None) or (value[0] if isinstance(value, tuple) else type(value).__name__)
    )


def _diff(diff, more, shape, strength, is_bias):
    if tuple(diff.shape) != shape:
        if more and more[0].get("pad_weight"):
            raise NotAdditiveError("a patch that enlarges a weight")
        return None
    if not strength:
        return None
    return Vector(diff, strength, gain=not is_bias) if len(shape) == 1 else Dense(diff, strength)


def _lora(weights, shape):
    up, down, alpha, mid, dora, *reshape = weights
    if dora is not None:
        raise NotAdditiveError("DoRA")
    if any(one is not None for one in reshape):
        raise NotAdditiveError("a patch that enlarges a weight")
    scale = alpha / down.shape[0] if alpha is not None else 1.0
    up, down = up.flatten(1), down.flatten(1)
    if mid is not None:
        # the middle convolution after the 1 x 1 one is one convolution
        down = torch.einsum("s r p q, r i -> s i p q", mid.float(), down.float()).flatten(1)
    fits = up.shape[0] == shape[0] and up.shape[1] == down.shape[0] and down.shape[1] == _inputs(shape)
    return LowRank(down, up, scale) if fits else None


def _loha(weights, shape):
    a, b, alpha, c, d, first, second, dora = weights
    if dora is not None:
        raise NotAdditiveError("DoRA")
    scale = alpha / b.shape[0] if alpha is not None else 1.0
    if first is not None:
        # Tucker form: the kernel of each factor's lower half is unfolded, its upper half stored transposed
        a, b, c, d = a.mT, _unfolded(first, b), c.mT, _unfolded(second, d)
    b, d = b.flatten(1), d.flatten(1)
    fits = a.shape[0] == c.shape[0] == shape[0] and b.shape[1] == d.shape[1] == _inputs(shape)
    return Hadamard(a, b, c, d, scale) if fits else None


def _unfolded(kernel, factor):
    return torch.einsum("s r p q, r i -> s i p q", kernel.float(), factor.float())


def _lokr(weights, shape):
    left, right, alpha, left_a, left_b, right_a, right_b, kernel, dora = weights
    if dora is not None:
        raise NotAdditiveError("DoRA")
    rank = None
    if left is None:
        rank, left = left_b.shape[0], left_a.float() @ left_b.float()
    if right is None:
        rank = right_b.shape[0]
        if kernel is None:
            right = right_a.float() @ right_b.float()
        else:
            right = torch.einsum("s r p q, r i, s o -> o i p q", kernel.float(), right_b.float(), right_a.float())
    scale = alpha / rank if alpha is not None and rank is not None else 1.0
    kernel = torch.Size(shape[2:]).numel()
    if left.ndim == 2 and right[0].numel() % kernel == 0:
        # inputs come before the kernel in a flat factor too
        whole = right.reshape(right.shape[0], right[0].numel() // kernel, *shape[2:])
        if (left.shape[0] * whole.shape[0], left.shape[1] * whole.shape[1]) == shape[:2]:
            return Kronecker(left, whole, scale)
    if left.numel() * right.numel() != shape[0] * _inputs(shape):
        return None
    # inputs and kernel were factored together
    return Dense(torch.kron(left.flatten(1).float(), right.flatten(1).float()).reshape(shape), scale)


def _inputs(shape):
    return torch.Size(shape[1:]).numel()


_ADAPTERS = {LoRAAdapter: _lora, LoHaAdapter: _loha, LoKrAdapter: _lokr, KronAAdapter: crossed_part}
