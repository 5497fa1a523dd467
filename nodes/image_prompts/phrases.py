"""The words that name objects, as tokens: how many there are, what they mean alone, where they stand in a prompt."""

from dataclasses import dataclass, replace

import comfy.model_management as mm
import torch

from ..host.clip_text import encoded, tokenized
from ..host.contexts import FIRST_TIMESTEP
from ..host.messages import input_error, warn_user
from ..host.paired_rows import PART_TOKENS
from ..host.token_runs import START, equal_tokens, is_token, tokens_between
from ..host.unet_inputs import unet_inputs

LONGEST = PART_TOKENS - 2


@dataclass(frozen=True, eq=False)
class Phrase:
    """The word or words of one object."""

    words: str
    # its tokens encoded alone, as the UNet reads them: (1, L, D), or (layers, L, D) in order of execution
    rows: torch.Tensor
    positions: tuple | None = None  # of its tokens in the prompt's context, None: the rows above are used

    @property
    def tokens(self):
        """How many tokens it has."""
        return self.rows.shape[1]


def phrases_of(base, clip, words, prompt=""):
    """One Phrase per text in `words`; with a prompt, each is looked up in it, the longest first.

    A word inside a longer one goes on to its next place; equal words share theirs. Raises ValueError for a CLIP whose
    tokens are not those of Stable Diffusion.
    """
    prompt_ids = tokens_of(clip, prompt) if prompt else []
    found = {text: _phrase(base, clip, text) for text in dict.fromkeys(words)}
    placed = []
    for text, (phrase, ids) in sorted(found.items(), key=lambda item: -len(item[1][1])):
        positions = next((place for other, place in placed if equal_tokens(ids, other)), None)
        if positions is None:
            positions = _found(ids, prompt_ids, {at for _, place in placed for at in place})
        if positions is not None:
            placed.append((ids, positions))
        found[text] = replace(phrase, positions=positions), ids
    return [found[text][0] for text in words]


def tokens_of(clip, text):
    """The tokens of a text, a list for each part of 77."""
    return [tokens_between(chunk) for chunk in _chunks(clip, text)]


def _phrase(base, clip, text):
    """(the Phrase of a text that has not been looked up, its tokens)."""
    if not text:
        return Phrase(text, torch.zeros(1, 0, 0)), []
    chunks = _chunks(clip, text)
    ids = tokens_between(chunks[0])[:LONGEST]
    if len(chunks) > 1:
        warn_user(f'the word "{text[:40]}..." is longer than {LONGEST} tokens; only its beginning is used')
    context = _context(base, clip, text)
    # row 0 is the start token
    return Phrase(text, context[:, 1 : len(ids) + 1]), ids


def _chunks(clip, text):
    """The chunks of a tokenized text: lists of (token, weight, ...), of one encoder, since all share the vocabulary."""
    tokens = tokenized(clip, text)
    encoders = [chunks for chunks in tokens.values() if _starts(chunks)] if isinstance(tokens, dict) else []
    if not encoders:
        raise input_error(
            "this CLIP does not read text as Stable Diffusion's does, so the references' words cannot be found; "
            "connect the CLIP of an SD1.5 or SDXL checkpoint"
        )
    return encoders[0]


def _starts(chunks):
    return bool(chunks) and bool(chunks[0]) and is_token(chunks[0][0][0], START)


def _context(base, clip, text):
    """(1, T, D), or (layers, T, D) from a CLIP that reads a text anew for each cross-attention: its first keys."""
    latent = torch.zeros(1, base.latent_format.latent_channels, 8, 8)
    inputs = unet_inputs(base, *encoded(clip, text), latent)
    if inputs.contexts is None:
        return inputs.context[:1]
    mm.load_models_gpu(list(inputs.contexts.models))
    return inputs.contexts.at(FIRST_TIMESTEP)[0]


def _found(ids, prompt_ids, taken):
    """Positions of the first run of these ids in the context of a prompt that is not taken; None if there is none."""
    for number, chunk in enumerate(prompt_ids):
        for start in range(len(chunk) - len(ids) + 1):
            if ids and equal_tokens(ids, chunk[start : start + len(ids)]):
                first = number * PART_TOKENS + 1 + start
                positions = tuple(range(first, first + len(ids)))
                if not taken & set(positions):
                    return positions
    return None
