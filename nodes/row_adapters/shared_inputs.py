"""Layers that read one input: the first factors of their low-rank deltas, in one product for all of them."""

from dataclasses import dataclass

import torch

from .layer_deltas import LayerDeltas
from .layer_products import chosen_of, first_half

# Layers of an attention that read the same tensor, in the order in which they run.
TOGETHER = {"attn1": ("to_q", "to_k", "to_v"), "attn2": ("to_k", "to_v")}


def shared_inputs(layers):
    """{name: SharedInput} of those among {name: LayerDeltas} that read one input and have terms of the same paths."""
    found = {}
    for name in layers:
        place, _, end = name.rpartition(".")
        ends = TOGETHER.get(place.rpartition(".")[2], ())
        if end not in ends[:1]:
            continue
        names = [f"{place}.{one}" for one in ends]
        several = [layers[one] for one in names if one in layers]
        if len(several) == len(names) and several[0].halves and all(s.halves == several[0].halves for s in several):
            found |= dict.fromkeys(names, SharedInput(names[0], several))
    return found


class SharedInput:
    """The first factors of several layers, which lie with the first of them (`leader`), the host moves them there."""

    def __init__(self, leader, layers):
        """layers: LayerDeltas, in the order in which they run; what they give is no longer theirs."""
        self.leader = leader
        self.layers = layers
        self._parts = []
        with torch.inference_mode(False), torch.no_grad():
            for number, downs in enumerate(zip(*(layer.give_halves() for layer in layers), strict=True)):
                ends = torch.tensor([down.shape[1] for down in downs]).cumsum(0).tolist()
                self._parts.append([slice(end - down.shape[1], end) for end, down in zip(ends, downs, strict=True)])
                stacked = torch.nn.Parameter(torch.cat(downs, 1), requires_grad=False)
                layers[0].tensors.register_parameter(f"shared_{number}", stacked)

    def part(self, layer, number):
        """Where a layer's own hidden channels stand in term `number`."""
        return self._parts[number][self.layers.index(layer)]


@dataclass(eq=False)
class Hidden:
    """What the layers of a SharedInput make of their input first, in one call of the UNet."""

    shared: SharedInput
    tensors: torch.nn.Module  # the leader's, on the device where it runs

    def __post_init__(self):
        self._input, self._made = None, {}

    def of(self, layer: LayerDeltas, given, rows, term):
        """The layer's own (k, m, r), of some rows by path (k, b, ..., i).

        given: the layer's input as it came, by which layers know that they read the same; term: (its number, its paths,
        the Span). Where another pack gives the layers different inputs, each has a product of its own.
        """
        number, paths, span = term
        own = self.shared.part(layer, number)
        if layer is self.shared.layers[0] and self._input is not given:
            self._input, self._made = given, {}
        down = chosen_of(getattr(self.tensors, f"shared_{number}"), paths, span.paths, rows)
        if self._input is not given:
            return first_half(rows, down[:, own])
        if (number, span) not in self._made:
            self._made[number, span] = first_half(rows, down)
        return self._made[number, span][..., own]

    def done(self, layer):
        """A layer has read its part: after the last one nothing is held any longer."""
        if layer is self.shared.layers[-1]:
            self._input, self._made = None, {}
