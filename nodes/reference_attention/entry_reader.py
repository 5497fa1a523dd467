"""The references' keys and values at one noise level: from this run, from the bank, or from a pass of their own."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch

from ..host.content_keys import digest, weights_key
from ..host.flat_entries import Entry
from ..host.layered_prompts import contexts_of, rows_of_first_text
from ..host.rows import entry_of
from ..host.text_rows import reads_one_text, rows_by_text, rows_of_call, text_rows
from ..host.when import unet_timestep
from .kept_steps import KeptSteps
from .reference_pass import caught, frames_of
from .run_tensors import RunTensors
from .second_unet import caught_by_other


class _Text(NamedTuple):
    """What a reference reads."""

    key: bytes  # a hash of it
    rows: object  # () -> TextRows of one row, on the device of the call


@dataclass(frozen=True)
class _Missing:
    """A reference whose entry this run does not have yet."""

    member: object
    index: int
    text: _Text
    shift: int  # as of Reading
    asker: int  # those of one asker run together


class EntryReader(RunTensors):
    """Keys and values of the references at the noise level that a run is at."""

    def __init__(self):
        super().__init__()
        self._sigma = None
        self._entries = {}
        # these hold for all noise levels of the run
        self._text_keys = {}
        self.kept = KeptSteps()

    def enter(self, sigma):
        if sigma != self._sigma:
            self._sigma = sigma
            self._entries.clear()

    def read(self, call, asking):
        """[(member, chunk, rows of the chunk, one Entry per reference of the member), ...], for asking: [(number,
        member, chunk), ...]. Entries {block: (k, v, grid), place: (mean, deviation)} are on the device of the call.

        rows: those of the chunk, by what references read beside them. From this run, else from the bank, else by a
        reference pass over those that are missing.
        """
        # hooks on a conditioning may switch weights between two calls of one step
        weights = weights_key(call.base.current_patcher)
        asked, missing = [], {}
        for asker, (number, member, chunk) in enumerate(asking):
            shift = chunk.reading.shift
            common = call.x.device, weights, frames_of(call), number, shift
            for rows, texts in self._texts(call, member, chunk):
                keys = [(*common, index, text.key) for index, text in enumerate(texts)]
                asked.append((member, chunk, rows, keys))
                for index, key in enumerate(keys):
                    if key not in self._entries:
                        missing.setdefault(key, _Missing(member, index, texts[index], shift, asker))
        if missing:
            self._entries.update(_from_bank_or_unet(call, missing, self.kept))
        return [(member, chunk, rows, [self._entries[key] for key in keys]) for member, chunk, rows, keys in asked]

    def _texts(self, call, member, chunk):
        """(rows of the chunk, per reference the _Text that it reads beside them)."""
        if member.reads_own_text(chunk):
            # hashed in main memory: nothing goes to the device where the bank has the entry
            like = torch.empty(0, dtype=call.x.dtype)
            keys = [self._kept_key(row, partial(text_rows, row.inputs, 1, like)) for row in member.rows]
            texts = [partial(text_rows, row.inputs, 1, call.x) for row in member.rows]
            yield tuple(range(chunk.start, chunk.stop)), [_Text(*one) for one in zip(keys, texts, strict=True)]
            return
        for rows in rows_by_text(chunk, call.context, call.y, call.run.conds()):
            text = partial(_text_of, call, chunk, rows)
            # another call may run other rows of a prompt of several texts, or what another pack made of one
            same = reads_one_text(chunk, call.run.conds()) and not call.rewritten
            # to match areas the host copies an entry to the other side under the same uuid
            key = self._kept_key((chunk.uuid, chunk.role), text) if same else _digest(text())
            yield rows, [_Text(key, text)] * len(member.rows)

    def _kept_key(self, what, text):
        if what not in self._text_keys:
            self._text_keys[what] = _digest(text())
        return self._text_keys[what]


def _text_of(call, chunk, rows):
    """The TextRows (one row) of what some rows of a chunk read."""
    first = slice(rows[0], rows[0] + 1)
    entry = entry_of(chunk, call.run.conds()) or {}
    tensor = entry.get("cross_attn")
    contexts = contexts_of(tensor, entry) if rows_of_first_text(tensor, call.context[first]) else None
    y = call.y[first] if call.y is not None else None
    return rows_of_call(call.context[first], y, contexts.to(call.context) if contexts is not None else None)


def _digest(text):
    return digest(text.context, text.y, text.contexts, text.values)


def _from_bank_or_unet(call, missing, kept):
    """{key: Entry} of {key: _Missing}; kept: the KeptSteps of the run."""
    inputs = {}
    for key, one in missing.items():
        same = one.member, one.index, one.shift
        if same not in inputs:
            inputs[same] = one.member.inputs(call, one.member.rows[one.index], one.shift)
        inputs[key] = inputs[same]
    names = _names(call, missing, inputs)
    found = {}
    if names:
        # all of them are sent on their way at once, beside what the device computes
        blocks = {block for one in missing.values() for block in one.member.blocks}
        held = kept.fetch(call, dict.fromkeys(names.values()), max(1, len(blocks)))
        found = {key: held[name] for key, name in names.items() if name in held}
    first = {}
    for key, name in names.items():
        if key not in found:
            first.setdefault(name, key)
    alike = {key: first[name] for key, name in names.items() if key not in found and first[name] != key}
    left = {key: one for key, one in missing.items() if key not in found and key not in alike}
    for key, entry in _from_unet(call, left, inputs):
        found[key] = entry
        if key in names:
            kept.put(call, names[key], entry, missing[key].member.cache_bytes)
    return found | {key: found[same] for key, same in alike.items()}


def _names(call, missing, inputs):
    """{key: what the bank calls the entry} of those whose members keep some."""
    keeping = {key: one for key, one in missing.items() if one.member.cache_bytes}
    if not keeping:
        return {}
    timestep = unet_timestep(call.moment.sigma, call.base.model_sampling)
    common = weights_key(call.base.current_patcher), frames_of(call), timestep, call.x.dtype
    return {
        key: (
            *common,
            weights_key(one.member.other),
            one.member.wanted,
            digest(inputs[key]),
            one.text.key,
            one.member.rows[one.index].mask_key,
        )
        for key, one in keeping.items()
    }


def _from_unet(call, missing, inputs):
    """(key, Entry) of each of {key: _Missing}, after one pass over all that fit into a batch."""
    groups = {}
    for key, one in missing.items():
        text = one.text.rows()
        groups.setdefault((one.asker, inputs[key].shape, text.context.shape), []).append((key, text))
    for group in groups.values():
        keys, texts = zip(*group, strict=True)
        member = missing[keys[0]].member
        x = torch.cat([inputs[key] for key in keys]).to(call.x)
        rows = [member.rows[missing[key].index] for key in keys]
        for key, entry in zip(keys, _pass_of(member)(call, x, texts, member.wanted, rows), strict=True):
            yield key, Entry(entry)


def _pass_of(member):
    return caught if member.other is None else partial(caught_by_other, member.other)
