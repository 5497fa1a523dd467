"""The references' keys and values at one noise level: from this run, from the bank, or from a pass of their own."""

import torch

from ..host.bank import bank_of
from ..host.content_keys import digest, weights_key
from ..host.layered_prompts import contexts_of
from ..host.rows import UNCOND, entry_of
from ..host.text_rows import TextRows, text_rows
from .reference_pass import caught_keys


class NoiseLevel:
    """Keys and values of the references at the noise level that a run is at."""

    def __init__(self):
        self._sigma = None
        self._entries = {}
        # these hold for all noise levels of the run
        self._text_keys = {}
        self._bias = {}

    def enter(self, sigma):
        if sigma != self._sigma:
            self._sigma = sigma
            self._entries.clear()

    def bias(self, row, grid, device):
        """The bias (m,) of a reference's kept tokens on a grid."""
        key = row, grid, device
        if key not in self._bias:
            self._bias[key] = row.kept(grid)[1].to(device)
        return self._bias[key]

    def entries(self, call, number, member, chunk):
        """One {block: (k, v)} per reference of the member, on the device of the call, for the rows of one chunk.

        From this run, else from the bank, else by a reference pass over those that are missing.
        """
        text_keys = [self._text_key(call, row, chunk) for row in member.rows]
        # hooks on a conditioning may switch weights between two calls of one step
        common = call.x.device, weights_key(call.base.current_patcher), number
        keys = [(*common, index, text) for index, text in enumerate(text_keys)]
        missing = [index for index, key in enumerate(keys) if key not in self._entries]
        if missing:
            texts = {index: (_text(call, member.rows[index], chunk), text_keys[index]) for index in missing}
            found = _from_bank_or_unet(call, member, texts)
            self._entries.update((keys[index], entry) for index, entry in found.items())
        return [self._entries[key] for key in keys]

    def _text_key(self, call, row, chunk):
        """A hash of what a reference reads beside the rows of a chunk, found once per run where it can be."""
        key = chunk.uuid if chunk.role == UNCOND else row
        if key is None:
            return _digest(_text(call, row, chunk))
        if key not in self._text_keys:
            self._text_keys[key] = _digest(_text(call, row, chunk))
        return self._text_keys[key]


def _text(call, row, chunk):
    """The TextRows (one row) of a reference: its own beside conditional rows, else that of the chunk."""
    if chunk.role != UNCOND:
        return text_rows(row.inputs, 1, call.x)
    first = slice(chunk.start, chunk.start + 1)
    entry = entry_of(chunk, call.run.conds()) or {}
    layers = contexts_of(entry.get("cross_attn"), entry)
    y = call.y[first] if call.y is not None else None
    return TextRows(call.context[first], y, layers.to(call.context) if layers is not None else None)


def _digest(text):
    return digest(text.context, text.y, text.layers)


def _from_bank_or_unet(call, member, texts):
    """{index: {block: (k, v)}} for references given as {index: (TextRows, its hash)}."""
    inputs = {index: member.inputs(call, member.rows[index]) for index in texts}
    bank, keys, found = None, {}, {}
    if member.cache_bytes:
        bank = bank_of(call.base)
        common = weights_key(call.base.current_patcher), float(call.timesteps[0]), call.x.dtype, tuple(member.blocks)
        for index, (_, text) in texts.items():
            keys[index] = *common, digest(inputs[index]), text, member.rows[index].mask_key
            entry = bank.get(keys[index], call.run, call.x.device)
            if entry is not None:
                found[index] = entry

    groups = {}
    for index in (index for index in texts if index not in found):
        groups.setdefault((inputs[index].shape, texts[index][0].context.shape), []).append(index)
    for indices in groups.values():
        x = torch.cat([inputs[index] for index in indices]).to(call.x)
        rows = [member.rows[index] for index in indices]
        read = [texts[index][0] for index in indices]
        caught = caught_keys(call, x, read, list(member.blocks), lambda i, grid, rows=rows: rows[i].kept(grid)[0])
        for index, entry in zip(indices, caught, strict=True):
            found[index] = entry
            if bank is not None:
                bank.put(keys[index], entry, call.run, member.cache_bytes)
    return found
