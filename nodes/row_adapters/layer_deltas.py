"""The deltas of all paths at one layer of the UNet: stacked, moved by the host, added to the layer's output."""

from collections import defaultdict
from threading import get_ident

import torch

from ..host.messages import log_warning
from .adapter_parts import Dense, Hadamard, Kronecker, LowRank, Vector
from .krona_adapter import Crossed
from .layer_products import LayerProducts, chosen_of, first_half

# Paths share one pair of products as long as padding their ranks costs at most this much more.
PADDING = 1.25


class LayerDeltas:
    """What the paths add at one layer. `tensors` is a module, so that the host may move and copy it."""

    def __init__(self, layer, parts_of_paths, dtype, label):
        """layer: the UNet's; parts_of_paths: {path: (part, ...)}, see adapter_parts; label: stands before messages."""
        self.tensors = torch.nn.Module()
        self.paths = frozenset(path for path, parts in parts_of_paths.items() if parts)
        self._layer = LayerProducts(layer)
        self._dtype = dtype
        self._label = label
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

    @property
    def halves(self):
        """The paths of each of its low-rank terms, of a linear layer; [] of a convolution."""
        return [] if self._layer.is_conv else [paths for kind, paths, _ in self._terms if kind == "low_rank"]

    def give_halves(self):
        """The first factors (k, r, i) of its low-rank terms, which `hook` then takes from a SharedInput."""
        given = []
        for number, (kind, paths, names) in enumerate(self._terms):
            if kind == "low_rank":
                given.append(getattr(self.tensors, names[0]))
                delattr(self.tensors, names[0])
                self._terms[number] = "shared", paths, names[1:]
        return given

    def hook(self, groups, tensors, tell=log_warning, hidden=None):
        """A forward hook for the layer, for a batch whose rows are grouped so; fewer rows are the first of them.

        tensors: `self.tensors`, or its copy for the device that the layer is on; tell: where a sentence for the
        user goes; hidden: the Hidden of its SharedInput, if it has one.
        """
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
                tell(
                    f"{self._label}: another node changed the number of rows at some layers, so the LoRAs are left out "
                    "there; bypass that node"
                )
                return
            x = x.to(output.dtype)
            for number, (kind, paths, names) in enumerate(self._terms):
                for span in present.spans(paths):
                    # index_select makes a tensor of its own, a view would stay one of inference mode
                    chosen = [chosen_of(getattr(tensors, name), paths, span.paths, x) for name in names]
                    mine = span.of(x, tiles)
                    if kind == "shared":
                        span.add_product(output, tiles, hidden.of(self, args[0], mine, (number, paths, span)), *chosen)
                    elif kind == "low_rank" and not self._layer.is_conv:
                        span.add_product(output, tiles, first_half(mine, chosen[0]), chosen[1])
                    else:
                        span.add(output, tiles, getattr(self._layer, kind)(mine, *chosen))
            if hidden is not None:
                hidden.done(self)

        return add

    def _term(self, kind, paths, *tensors):
        names = []
        for tensor in tensors:
            names.append(f"{kind}_{len(self._terms)}_{len(names)}")
            # a copy of our own: the file's tensor may be another node's, or of inference mode
            tensor = torch.nn.Parameter(tensor.to(self._dtype, copy=True).contiguous(), requires_grad=False)
            self.tensors.register_parameter(names[-1], tensor)
        self._terms.append((kind, tuple(paths), names))


def _single(part, path):
    """(kind, paths, tensors) of a part that one path has for itself."""
    paths = (path,)
    if isinstance(part, Vector):
        return "gain" if part.gain else "bias", paths, part.vector[None].float() * part.scale
    if isinstance(part, Dense):
        return "dense", paths, part.weight[None].float() * part.scale
    if isinstance(part, Crossed):
        return "crossed", paths, part.down[None].float() * part.scale, part.up[None]
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
