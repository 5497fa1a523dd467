"""The deltas of all paths at one layer of the UNet: stacked, moved by the host, added to the layer's output."""

from collections import defaultdict
from threading import get_ident

import comfy.model_patcher
import torch
import torch.nn.functional as F

from ...kernels.row_adapters import grouped_conv, grouped_linear, hadamard_weight, kronecker_conv, kronecker_linear
from ..host.gradients import normal
from ..host.messages import log_warning
from .adapter_parts import Dense, Hadamard, Kronecker, LowRank, Vector, weight_shape

# Paths share one pair of products as long as padding their ranks costs at most this much more.
PADDING = 1.25


class LayerDeltas:
    """What the paths add at one layer. `tensors` is a module of the host's own kind, so that the host may move it."""

    def __init__(self, layer, parts_of_paths, dtype):
        """layer: the UNet's; parts_of_paths: {path: (part, ...)}, see adapter_parts."""
        self.tensors = torch.nn.Module()
        self.paths = frozenset(path for path, parts in parts_of_paths.items() if parts)
        self._layer = _Layer(layer)
        self._dtype = dtype
        # (function of the layer, paths, names of its tensors), in the order in which they are added
        self._terms = []
        low_rank, others = defaultdict(list), []
        for path, parts in parts_of_paths.items():
            for part in parts:
                part = (isinstance(part, Hadamard) and part.low_rank()) or part
                if isinstance(part, LowRank):
                    low_rank[path].append(part)
                else:
                    others.append((path, part))
        # tensors made in inference mode could not be saved for a gradient
        with torch.inference_mode(False), torch.no_grad():
            for paths in _alike({path: sum(len(p.down) for p in parts) for path, parts in low_rank.items()}):
                self._term("low_rank", paths, *self._layer.stacked([low_rank[path] for path in paths]))
            for path, part in others:
                self._term(*_single(part, path))

    def hook(self, groups):
        """A forward hook for the layer, for a batch whose rows are grouped so; fewer rows are the first of them."""

        thread = get_ident()

        def add(layer, args, output):
            if get_ident() != thread:
                # somebody else samples the same checkpoint meanwhile
                return
            x = args[0]
            # a technique may end the last rows early
            present = groups.first(x.shape[0]) if x.shape[0] < groups.count else groups
            # HyperTile and its like cut rows into tiles, which follow each other
            tiles, odd = divmod(x.shape[0], present.count)
            if odd or output.shape[0] != x.shape[0]:
                log_warning("another patch changed the number of rows; per-row adapters are skipped there")
                return
            x = x.to(output.dtype)
            for kind, paths, names in self._terms:
                for span in present.spans(paths):
                    # index_select makes a tensor of its own, a view would stay one of inference mode
                    tensors = [_chosen(getattr(self.tensors, name), paths, span.paths, x) for name in names]
                    span.add(output, tiles, getattr(self._layer, kind)(span.of(x, tiles), *tensors))

        return add

    def _term(self, kind, paths, *tensors):
        names = []
        for tensor in tensors:
            names.append(f"{kind}_{len(self._terms)}_{len(names)}")
            # a copy of our own: the file's tensor may be another node's, or of inference mode
            tensor = torch.nn.Parameter(tensor.to(self._dtype, copy=True).contiguous(), requires_grad=False)
            self.tensors.register_parameter(names[-1], tensor)
        self._terms.append((kind, tuple(paths), names))


def adapters_patcher(base, layers):
    """The host's handle on the tensors of {name: LayerDeltas}: loaded to where the base MODEL runs."""
    module = torch.nn.Module()
    for number, deltas in enumerate(layers.values()):
        module.add_module(str(number), deltas.tensors)
    return comfy.model_patcher.ModelPatcher(module, load_device=base.load_device, offload_device=base.offload_device)


class _Layer:
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
        if self.is_conv:
            return grouped_conv(self._bordered(x), down, up, **self.geometry)
        k, b = x.shape[:2]
        return grouped_linear(x.reshape(k, -1, x.shape[-1]), down, up).reshape(k, b, *x.shape[2:-1], -1)

    def kronecker(self, x, left, right):
        if self.is_conv:
            return kronecker_conv(self._bordered(x)[0], left[0], right[0], **self.geometry)[None]
        return kronecker_linear(x[0], left[0], right[0])[None]

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


def _single(part, path):
    """(kind, paths, tensors) of a part that one path has for itself."""
    paths = (path,)
    if isinstance(part, Vector):
        return "gain" if part.gain else "bias", paths, part.vector[None].float() * part.scale
    if isinstance(part, Dense):
        return "dense", paths, part.weight[None].float() * part.scale
    if isinstance(part, Kronecker):
        return "kronecker", paths, part.left[None].float() * part.scale, part.right[None]
    return "hadamard", paths, part.a[None].float() * part.scale, part.b[None], part.c[None], part.d[None]


def _alike(ranks):
    """Paths in groups whose ranks may be padded to the largest at a small cost; ranks: {path: rank}."""
    groups = []
    for path, rank in sorted(ranks.items(), key=lambda item: -item[1]):
        group = groups[-1] if groups else []
        if group and (len(group) + 1) * ranks[group[0]] <= PADDING * (sum(ranks[p] for p in group) + rank):
            group.append(path)
        else:
            groups.append([path])
    return [sorted(group) for group in groups]


def _chosen(tensor, paths, wanted, x):
    """The tensors (k, ...) of some paths, in their order, where and as the layer computes."""
    tensor = tensor.to(x.device, x.dtype)
    if wanted != paths:
        order = torch.tensor([paths.index(path) for path in wanted], device=tensor.device)
        tensor = tensor.index_select(0, order)
    # the host may have moved it in inference mode
    return normal(tensor)
