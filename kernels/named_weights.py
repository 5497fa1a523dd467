"""Tensors of a file by their names: those of a part, a matrix, a norm and its shapes."""

import torch.nn.functional as F

_EPS = 1e-5


def below(named, prefix):
    """{name without the prefix: value} of those that have it."""
    return {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}


def matrix_shape(shapes, name):
    """(rows, columns) of a matrix of {name: shape}; KeyError where it is missing, ValueError where it is none."""
    if len(shapes[name]) != 2:
        raise ValueError(f"{name} has the shape {list(shapes[name])}, which is not a matrix")
    return shapes[name]


def linear_shapes(name, out, *inner):
    """{name: shape} of the weight (out, *inner) and the bias of a layer."""
    return {f"{name}.weight": (out, *inner), f"{name}.bias": (out,)}


def norm_shapes(name, width):
    """{name: shape} of a norm."""
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def layer_norm(x, weights, name):
    """The norm of a name over the last axis of x, which is float32."""
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"].float(), weights[f"{name}.bias"].float(), _EPS)
