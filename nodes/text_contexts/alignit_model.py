"""AlignIT on a MODEL: rows of a prompt that are the base's pass the base's projections, the concept's its own."""

from dataclasses import replace

import comfy.lora
import torch

from ..files.lora_names import UNET_PREFIX
from ..host.attach import attach
from ..host.attention import plain_attention
from ..host.bare_unet import on_bare_unet
from ..host.blocks import attention_blocks, cross_attention, name_of_block, unet_of
from ..host.calls import live_unet
from ..host.contexts import FixedContexts
from ..host.hooked_weights import unpatched
from ..host.layered_prompts import contexts_of
from ..host.messages import input_error
from ..host.packed_weights import check_unpackable, unpacked
from ..host.rows import COND, entry_of
from ..host.technique import Branch, Technique
from .alignit import OF_BASE
from .context_router import ContextRouter

_LABEL = "AlignIT"


@on_bare_unet
def attach_alignit(model, base_model):
    """The MODEL whose keys and values of the base's rows (see alignit.py) are those of the base MODEL.

    Raises ValueError for two MODELs of other shapes, and for weights whose values cannot be read.
    """
    unet = unet_of(model, _LABEL)
    base = unet_of(base_model, _LABEL)
    mine, theirs = (_shapes(one) for one in (unet, base))
    if mine != theirs:
        raise input_error("model and base_model are of different families; connect the checkpoint without the concept")
    check_unpackable([cross_attention(base, block).to_k for block in attention_blocks(base)], _LABEL)
    return attach(attach(model, ContextRouter(())), AlignIT(base_model))


def _shapes(unet):
    attentions = {block: cross_attention(unet, block) for block in attention_blocks(unet)}
    return {block: (one.to_k.out_features, one.to_k.in_features) for block, one in attentions.items()}


class AlignIT(Technique):
    """The base MODEL's keys and values for the rows that are its own."""

    name = "alignit"
    order = 27

    def __init__(self, base_model):
        self.base_model = base_model

    def joined_by(self, later):
        return later

    def begin(self, run):
        entries = [entry for several in run.conds().values() for entry in several]
        if not any(OF_BASE in entry for entry in entries):
            run.tell(
                "no prompt in this run comes from the AlignIT node, so AlignIT Model does nothing; connect that "
                "node's conditioning"
            )

    def plan(self, call):
        held = call.run.state(self.name, dict, call.base)
        texts = {}
        for chunk in call.chunks:
            entry = entry_of(chunk, call.run.conds()) or {}
            if chunk.role == COND and OF_BASE in entry:
                texts[chunk] = self._text(held, chunk, entry, call)
        if not texts:
            return {}
        blocks = list(attention_blocks(live_unet(call.base)))
        return {("attn2", block): BaseRows(self, held, texts, (number, block)) for number, block in enumerate(blocks)}

    def _text(self, held, chunk, entry, call):
        """(a key that changes with the text, its keys and values as rows (L, T, D), its OfBase with one mark a row)."""
        known = held.get(("text", chunk.uuid))
        if known is None:
            contexts = contexts_of(entry.get("cross_attn"), entry)
            if contexts is None:
                # once: the host repeats a shorter prompt beside a longer one
                contexts = FixedContexts(call.context[chunk.start, : entry["cross_attn"].shape[1]][None])
            contexts, marks = contexts.to(call.context), entry[OF_BASE]
            rows = torch.zeros(contexts.at(call.whole_timestep)[0].shape[1], dtype=torch.bool)
            rows[: len(marks.rows)] = marks.rows[: len(rows)].to(rows.device)
            known = contexts, replace(marks, rows=rows.to(call.context.device))
            held["text", chunk.uuid] = known
        contexts, marks = known
        key = (chunk.uuid,) if isinstance(contexts, FixedContexts) else (chunk.uuid, call.whole_timestep)
        return key, contexts.at(call.whole_timestep), marks

    def projected(self, held, key, rows, place):
        """(T, d): rows (T, D) through the base MODEL's projection at a place, computed once for each text."""
        uuid, *timesteps = key
        known = held.setdefault(("projected", uuid), {})
        if known.get("key") != key:
            # of earlier timesteps
            known.clear()
            known["key"] = key
        if place not in known:
            weight = held.get(("weight", place))
            if weight is None:
                weight = self._weight(place).to(rows)
            if timesteps:
                # the next timestep wants it again
                held["weight", place] = weight
            known[place] = rows @ weight.T
        return known[place]

    def _weight(self, place):
        """The base MODEL's own weight with its patches, whatever is loaded or patched at the moment."""
        block, side = place
        layer = getattr(cross_attention(live_unet(self.base_model.model), block), side)
        key = f"{UNET_PREFIX}{name_of_block(block)}.attn2.{side}.weight"
        clean = unpatched(self.base_model, key, layer.weight)
        weight = unpacked(layer, "weight", clean).clone()
        return comfy.lora.calculate_weight(self.base_model.patches.get(key, []), weight, key)


class BaseRows(Branch):
    """A branch: attention whose keys and values of some rows of the text are the base MODEL's."""

    label = _LABEL

    def __init__(self, technique, held, texts, place):
        self.technique, self.held, self.texts = technique, held, texts
        self.number, self.block = place

    def __call__(self, q, k, v, options, chunk, plain):
        if chunk not in self.texts or len(k) != len(q):
            return None
        key, (keys, values), marks = self.texts[chunk]
        wanted = {"to_k": (k, keys, marks.keys), "to_v": (v, keys if values is None else values, marks.values)}
        swapped = []
        for side, (mine, rows, counts) in wanted.items():
            if counts:
                rows = rows[self.number % len(rows)]
                made = self.technique.projected(self.held, key, rows, (self.block, side))
                times = mine.shape[1] // len(rows)
                mine = torch.where(marks.rows.repeat(times)[:, None], made.repeat(times, 1).to(mine), mine)
            swapped.append(mine)
        return plain_attention(q, *swapped, options)
