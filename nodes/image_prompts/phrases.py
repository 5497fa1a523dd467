"""The words that name objects, as tokens: how many there are, what they mean alone, where they stand in a prompt."""

from dataclasses import dataclass, replace

import comfy.model_management as mm
import torch

from ..host.clip_text import encoded
from ..host.contexts import FIRST_TIMESTEP
from ..host.messages import warn_user
from ..host.token_runs import (
    PART_TOKENS,
    equal_tokens,
    parts_of_text,
    row_of_token,
    starts_of,
    tokens_between,
    tokens_in,
)
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
    prompt_ids = tokens_in(clip, prompt) if prompt else []
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


def _phrase(base, clip, text):
    """(the Phrase of a text that has not been looked up, its tokens)."""
    if not text:
        return Phrase(text, torch.zeros(1, 0, 0)), []
    parts = parts_of_text(clip, text)
    ids = tokens_between(parts[0])[:LONGEST]
    if len(parts) > 1:
        warn_user(f'the word "{text[:40]}..." is longer than {LONGEST} tokens; only its beginning is used')
    context = _context(base, clip, text)
    # row 0 is the start token
    return Phrase(text, context[:, 1 : len(ids) + 1]), ids


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
    for number, tokens in enumerate(prompt_ids):
        for start in starts_of(ids, tokens):
            first = row_of_token(number, start)
            positions = tuple(range(first, first + len(ids)))
            if not taken & set(positions):
                return positions
    return None
