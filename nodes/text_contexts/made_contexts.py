"""Contexts that are made while sampling: a text encoder reads the prompt anew at each timestep.

A word's maker answers at(timestep) with its rows for the encoder (L, D), and with what is added to the encoder's state
before its last norm, for values alone (L, D), or None.
"""

from bisect import bisect_right
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import Lock
from weakref import WeakKeyDictionary

import comfy.model_management as mm
import torch

from ..host.content_keys import patches_digest
from ..host.contexts import Contexts
from ..host.loaded import loaded_patcher
from ..host.messages import input_error
from .readings import BORDERS, rolled_up, unrolled, words_in
from .word_tokenizer import KEYS, MAKER, ROWS

# How far a unit vector beside the encoder's state moves it, by the state's own length (NeTI, arXiv 2305.15391).
BYPASS = 0.2
# One lock for each encoder: the threads of several devices share it.
_LOCKS, _LOCK = WeakKeyDictionary(), Lock()


@dataclass(frozen=True, eq=False)
class MadeContexts(Contexts):
    """A prompt that one text encoder reads; what it gave at the last timestep is kept."""

    encoder: object  # the host's SDClipModel
    parts: list  # of the prompt: [[(token, weight, ...), ...], ...]
    readings: tuple
    skipped: int  # the encoder's layer that is read, as the host counts: -1 is the last
    patcher: object  # the host's handle on the network, with the patches that were in force
    changes: tuple = ()
    _last: dict = field(default_factory=dict, repr=False)

    @property
    def models(self):
        return (self.patcher,)

    def at(self, timestep):
        """Raises ValueError where the text encoder runs with other patches than those that encoded the prompt."""
        loaded = loaded_patcher(self.patcher.model)
        if loaded is None:
            mm.load_models_gpu([self.patcher])
        elif loaded.patches_uuid != self.patcher.patches_uuid:
            raise differently_patched()
        found = self._last.get(timestep)
        if found is None:
            with torch.inference_mode(), _states_of(self.encoder, self.skipped, self.patcher.load_device):
                found = self._made(timestep)
            self._last.clear()
            self._last[timestep] = found
        for change in self.changes:
            found = change(*found)
        return found

    def mapped(self, change):
        return replace(self, changes=(*self.changes, change))

    @property
    def contents(self):
        makers = [getattr(token, MAKER).contents for part in self.parts for token in words_in(part) if _is_made(token)]
        rows = [[(getattr(token, ROWS, token), *rest) for token, *rest in part] for part in self.parts]
        return makers, rows, self.skipped, patches_digest(self.patcher.patches)

    def _made(self, timestep):
        """(keys, values) (L, T, D) at a timestep, or values None where they are the keys."""
        stages = 1 + self.readings[0].stage
        stage = bisect_right(BORDERS, timestep) if stages > 1 else 0
        readings = [reading for reading in self.readings if reading.stage == stage]
        moves, parts = {}, []
        for part in self.parts:
            parts.append([(_at(token, timestep, moves), *rest) for token, *rest in part])
        varies = [bool(words_in(part)) for part in parts]
        prompts = unrolled(parts, varies, readings)
        states = self._states(prompts)
        own, empty = states[: len(prompts)], states[len(prompts) :]
        keys = _weighted(self._normed(own), self._normed(empty), prompts)
        values = keys
        if moves:
            # each prompt knows its words by what stands for them at its layer
            moved = _moved(own, parts, varies, readings, moves)
            values = _weighted(self._normed(moved), self._normed(empty), prompts)
        keys, values = (rolled_up(t, parts, varies, readings) for t in (keys, values))
        if readings[-1].keys:
            return keys[1::2], values[0::2]
        return keys, values if moves else None

    def _states(self, prompts):
        """The encoder's states before its last norm, of the prompts and of an empty one if there are weights."""
        tokens = [[token for token, *_ in prompt] for prompt in prompts]
        if any(weight != 1.0 for prompt in prompts for _, weight, *_ in prompt):
            marks = self.encoder.special_tokens
            tokens.append([marks["start"], marks["end"], *[marks["pad"]] * (len(tokens[0]) - 2)])
        return self.encoder.encode(tokens)[0]

    def _normed(self, states):
        return self.encoder.transformer.text_model.final_layer_norm(states).float()


def made_contexts(network, tokens, readings):
    """The MadeContexts of a prompt that a CLIP's network is encoding at the moment: {encoder: parts}.

    Raises ValueError for a network of several encoders.
    """
    if len(tokens) > 1:
        raise input_error("words that are made while sampling work on SD1.5; connect the CLIP of such a checkpoint")
    ((name, parts),) = tokens.items()
    encoder = getattr(network, f"clip_{name}")
    skipped = encoder.layer_idx if encoder.layer == "hidden" else -1
    return MadeContexts(encoder, parts, tuple(readings), skipped, loaded_patcher(network))


def differently_patched():
    """The exception for prompts of one run that want different weights of one text encoder."""
    return input_error(
        "two prompts of this run have words that are made while sampling, encoded by CLIPs with different LoRAs or "
        "patches; encode both prompts with the same CLIP"
    )


@contextmanager
def _states_of(encoder, skipped, device):
    """Inside, an encoder of the host gives its states before its last norm, on a device, to one thread at a time."""
    wanted = {"layer": "hidden", "layer_idx": skipped, "layer_norm_hidden_state": False, "execution_device": device}
    # older hosts know no device but that of the weights
    with _LOCK:
        lock = _LOCKS.setdefault(encoder, Lock())
    with lock:
        before = {name: getattr(encoder, name) for name in wanted if hasattr(encoder, name)}
        for name in before:
            setattr(encoder, name, wanted[name])
        try:
            yield
        finally:
            for name, value in before.items():
                setattr(encoder, name, value)


def _is_made(token):
    return hasattr(token, MAKER)


def _at(token, timestep, moves):
    """A token as it is at a timestep; notes in {maker: (L, D)} what its maker adds to the states."""
    if not _is_made(token):
        return token
    maker = getattr(token, MAKER)
    rows, move = maker.at(timestep)
    if move is not None:
        moves[maker] = move
    made = rows[0].clone()
    setattr(made, ROWS, rows[None])
    setattr(made, MAKER, maker)
    if hasattr(token, KEYS):
        setattr(made, KEYS, getattr(token, KEYS))
    return made


def _moved(states, parts, varies, readings, moves):
    """The states (n, T, D) of the unrolled parts with the words' own moves at their places."""
    states, number = states.clone(), 0
    for part, changing in zip(parts, varies, strict=True):
        places = [(at, getattr(token, MAKER)) for at, (token, *_) in enumerate(part) if _is_made(token)]
        for reading in readings[: None if changing else 1]:
            for at, maker in places:
                if maker in moves and not reading.keys:
                    move = moves[maker][reading.layer].to(states)
                    states[number, at] += BYPASS * move / move.norm() * states[number, at].norm()
            number += 1
    return states


def _weighted(z, empty, prompts):
    """The host's rule for prompt weights: z_empty + weight (z - z_empty), z (n, T, D), z_empty (1, T, D) if any."""
    if not len(empty):
        return z
    weights = torch.tensor([[weight for _, weight, *_ in prompt] for prompt in prompts]).to(z)[..., None]
    return torch.where(weights == 1, z, (z - empty) * weights + empty)
