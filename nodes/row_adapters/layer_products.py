"""How the products of adapters are taken at one layer of the UNet: of rows by path, with tensors of those paths."""

import torch
import torch.nn.functional as F

from ...kernels.row_adapters import (
    crossed_linear,
    grouped_conv,
    hadamard_weight,
    kronecker_conv,
    kronecker_linear,
    lowered,
)
from ..host.gradients import normal
from .adapter_parts import weight_shape


class LayerProducts:
    """How the products are taken at one layer: of rows by path (k, b, ...) with tensors of those k paths."""

    def __init__(self, layer):
        self.shape = weight_shape(layer)
        self.is_conv = len(self.shape) == 4
        self.geometry, self.border, self.norm = {}, None, None
        if self.is_conv:
            self.geometry = {name: getattr(layer, name) for name in ("stride", "padding", "dilation")}
            if layer.padding_mode != "zeros":
                # pictures without seams: the border is laid on before, as the layer itself does
                self.border = layer.padding_mode, layer._reversed_padding_repeated_twice
                self.geometry["padding"] = (0, 0)
        elif isinstance(layer, torch.nn.LayerNorm):
            self.norm = lambda x: F.layer_norm(x, layer.normalized_shape, eps=layer.eps)
        elif isinstance(layer, torch.nn.GroupNorm):
            self.norm = lambda x: F.group_norm(x, layer.num_groups, eps=layer.eps)
        # where channels stand in the output of one path
        self.channels_first = self.is_conv or isinstance(layer, torch.nn.GroupNorm)

    def stacked(self, paths):
        """(down (k, r, i[, p, q]), up (k, o, r)) of k lists of LowRank, with ranks padded by zeros."""
        ranks = [sum(len(part.down) for part in parts) for parts in paths]
        down = torch.zeros(len(paths), max(ranks), *self.shape[1:])
        up = torch.zeros(len(paths), self.shape[0], max(ranks))
        for k, parts in enumerate(paths):
            first = 0
            for part in parts:
                own = slice(first, first + len(part.down))
                down[k, own] = part.down.float().reshape(-1, *self.shape[1:])
                up[k, :, own] = part.up.float() * part.scale
                first = own.stop
        return down, up

    def low_rank(self, x, down, up):
        return grouped_conv(self._bordered(x), down, up, **self.geometry)

    def kronecker(self, x, left, right):
        if self.is_conv:
            return kronecker_conv(self._bordered(x)[0], left[0], right[0], **self.geometry)[None]
        return kronecker_linear(x[0], left[0], right[0])[None]

    def crossed(self, x, down, up):
        return crossed_linear(x[0], down[0], up[0])[None]

    def hadamard(self, x, a, b, c, d):
        return self.dense(x, hadamard_weight(a[0], b[0], c[0], d[0]).reshape(1, *self.shape))

    def dense(self, x, weight):
        if self.is_conv:
            return F.conv2d(self._bordered(x)[0], weight[0], **self.geometry)[None]
        return F.linear(x[0], weight[0])[None]

    def bias(self, x, vector):
        """Of the shape of the output, whatever that is: it broadcasts."""
        rows = torch.ones(x.shape[:2], dtype=x.dtype, device=x.device)
        spread = (1, 1, -1, *(1,) * (x.ndim - 3)) if self.channels_first else (*(1,) * (x.ndim - 1), -1)
        return vector[0].reshape(spread) * rows.reshape(*rows.shape, *(1,) * (x.ndim - 2))

    def gain(self, x, vector):
        return self.norm(x.flatten(0, 1)).unflatten(0, x.shape[:2]) * self.bias(x, vector)

    def _bordered(self, x):
        if self.border is None:
            return x
        mode, sides = self.border
        return F.pad(x.flatten(0, 1), sides, mode=mode).unflatten(0, x.shape[:2])


def first_half(x, down):
    """x . down^T of rows by path (k, b, ..., i) with down (k, r, i): (k, m, r)."""
    return lowered(x.reshape(len(x), -1, x.shape[-1]), down)


def chosen_of(tensor, paths, wanted, x):
    """The tensors (k, ...) of some paths, in their order, where and as the layer computes."""
    tensor = tensor.to(x.device, x.dtype)
    if wanted != paths:
        order = torch.tensor([paths.index(path) for path in wanted], device=tensor.device)
        tensor = tensor.index_select(0, order)
    # the host may have moved it in inference mode
    return normal(tensor)
