"""AlignIT (arXiv 2406.18893): a concept's tokens come from the customised model, all others from the base model.

The abstract is all that was to be had of the paper; what it leaves open is our decision, as the help page says.
"""

from dataclasses import dataclass

import torch

from ..host.choices import check_listed
from ..host.clip_text import check_clip, encoded_once
from ..host.contexts import Contexts, FixedContexts
from ..host.layered_prompts import LAYERS, PLAIN, contexts_of
from ..host.messages import input_error
from ..host.token_runs import PART_TOKENS, row_of_token, starts_of, tokens_between
from .whole_words import standing_alone

ALIGNED = ("both", "keys", "values")
SLOT = "{}"
# Where the conditioning says which rows are the base's: an OfBase.
OF_BASE = "personalization_alignit"


@dataclass(frozen=True, eq=False)
class OfBase:
    """Which rows of a prompt the base model's projections read, for which sides of attention."""

    rows: torch.Tensor  # (T,) bool
    keys: bool
    values: bool

    def __deepcopy__(self, memo):
        return self


@dataclass(frozen=True)
class Splice:
    """Where each row of a spliced prompt comes from: (whether from the dummy prompt, its row there)."""

    places: tuple

    def keys(self, base, dummy):
        """(L, T, D) of the base prompt (L or 1, T0, D) and the dummy prompt (L or 1, T1, D)."""
        layers = max(len(base), len(dummy))
        base, dummy = base.expand(layers, -1, -1), dummy.to(base).expand(layers, -1, -1)
        return torch.stack([(dummy if own else base)[:, row] for own, row in self.places], 1)

    @property
    def of_base(self):
        return torch.tensor([not own for own, _ in self.places])


def align(clip, base_clip, texts, parts="both"):
    """The CONDITIONING of a prompt whose concept is read as the customised CLIP reads it in a short prompt, and whose
    rest as the base CLIP reads it with the class word in the concept's place.

    texts: (prompt, concept, class word, dummy prompt with {} for the concept); parts: whether keys, values or both are
    spliced; the other side is the prompt by the customised CLIP. Raises ValueError where the concept is not found, for
    parts that are none of ALIGNED and for CLIPs with keyframes.
    """
    prompt, concept, class_word, dummy = texts = tuple(text.strip() for text in texts)
    check_listed("parts", parts, ALIGNED)
    _check(concept, class_word, dummy)
    check_clip(clip)
    check_clip(base_clip)
    tensor, values = encoded_once(clip, prompt)
    base = encoded_once(base_clip, _plain(prompt, concept, class_word))
    dummied = encoded_once(clip, dummy.replace(SLOT, concept))
    length = base[0].shape[1] if parts == "both" else tensor.shape[1]
    splice = _splice(clip, base_clip, texts, (base[0].shape[1], length))
    mine, own, other = ((contexts_of(*text) or FixedContexts(text[0])) for text in ((tensor, values), base, dummied))
    spliced = SplicedContexts(splice, mine, own, other, parts)
    values = {name: value for name, value in values.items() if name not in (LAYERS, PLAIN, "additional_models")}
    values[OF_BASE] = OfBase(splice.of_base, parts != "values", parts != "keys")
    if spliced.models:
        values["additional_models"] = list(spliced.models)
    if all(isinstance(one, FixedContexts) for one in (mine, own, other)):
        keys, apart = spliced.at(0)
        if apart is None and len(keys) == 1:
            return [[keys, values]]
        spliced = FixedContexts(keys, apart)
    shown = splice.keys(base[0], dummied[0]) if parts != "values" else tensor
    return [[shown, {**values, LAYERS: spliced, PLAIN: shown}]]


@dataclass(frozen=True, eq=False)
class SplicedContexts(Contexts):
    """Contexts of a spliced prompt whose parts are read anew at each timestep."""

    splice: Splice
    mine: Contexts  # of the prompt by the customised CLIP
    base: Contexts
    dummy: Contexts
    parts: str
    changes: tuple = ()

    @property
    def models(self):
        return tuple(dict.fromkeys(one for part in (self.mine, self.base, self.dummy) for one in part.models))

    def at(self, timestep):
        (keys, values), (more_keys, more_values) = self.base.at(timestep), self.dummy.at(timestep)
        spliced = self.splice.keys(keys, more_keys)
        apart = None
        if values is not None or more_values is not None:
            pair = (keys if values is None else values), (more_keys if more_values is None else more_values)
            apart = self.splice.keys(*pair)
        if self.parts != "both":
            own_keys, own_values = self.mine.at(timestep)
            own_values = own_keys if own_values is None else own_values
            own = own_keys if self.parts == "values" else own_values
            layers, values = max(len(own), len(spliced)), spliced if apart is None else apart
            spliced, values, own = (t.expand(layers, -1, -1) for t in (spliced, values, own.to(spliced)))
            spliced, apart = (spliced, own) if self.parts == "keys" else (own, values)
        found = spliced, apart
        for change in self.changes:
            found = change(*found)
        return found

    def mapped(self, change):
        return SplicedContexts(self.splice, self.mine, self.base, self.dummy, self.parts, (*self.changes, change))

    @property
    def contents(self):
        return self.splice.places, self.mine.contents, self.base.contents, self.dummy.contents, self.parts


def _check(concept, class_word, dummy):
    if not concept.strip():
        raise input_error("concept is empty; enter the words of the concept as they stand in the prompt")
    if not class_word.strip():
        raise input_error("class_word is empty; enter what the concept is in ordinary words, such as cat")
    if SLOT not in dummy:
        raise input_error(f'dummy is "{dummy}"; write {{}} where the concept belongs, such as a photo of a {{}}')


def _plain(prompt, concept, class_word):
    """The prompt with the class word in the place of the concept, which other words may hold: dog in dogma."""
    return standing_alone(concept).sub(lambda _: class_word, prompt)


def _splice(clip, base_clip, texts, lengths):
    """The Splice of the texts; lengths: of the base prompt's rows, and of what is made."""
    prompt, concept, class_word, dummy = texts
    phrase, ordinary = _tokens(clip, concept), _tokens(base_clip, class_word)
    mine, short = _tokens(clip, prompt), _tokens(clip, dummy.replace(SLOT, concept))
    here, there = _starts(mine, phrase), _starts(short, phrase)
    if not here:
        raise input_error(f'the concept "{concept}" is not in the prompt; write it there letter by letter')
    if not there:
        raise input_error(f'the concept "{concept}" is not found in the dummy prompt; use a shorter one')
    taken = _rows(short, there[0], phrase, f'the concept "{concept}" of the dummy prompt')
    plain, moved, spans = _tokens(base_clip, _plain(prompt, concept, class_word)), 0, []
    for start in here:
        _rows(mine, start, phrase, f'the concept "{concept}"')
        if start + moved not in _starts(plain, ordinary):
            raise input_error(f'the class word "{class_word}" is not found in the concept\'s place; enter another one')
        spans.append(_rows(plain, start + moved, ordinary, f'the class word "{class_word}"'))
        moved += len(ordinary) - len(phrase)
    places = [(False, row) for row in range(lengths[0])]
    for span in reversed(spans):
        places[span.start : span.stop] = [(True, row) for row in taken]
    places += [(False, lengths[0] - 1)] * (lengths[1] - len(places))
    return Splice(tuple(places[: lengths[1]]))


def _tokens(clip, text):
    """[(row of the context, token), ...] of a text's own tokens."""
    name, parts = next(iter(clip.tokenize(text).items()))
    end = getattr(clip.tokenizer, f"clip_{name}").end_token
    return [
        (row_of_token(number, at), token)
        for number, part in enumerate(parts)
        for at, token in enumerate(tokens_between(part, end))
    ]


def _starts(tokens, phrase):
    """Where among tokens a phrase begins, each time behind the one before."""
    found, ids = [], [token for _, token in phrase]
    for start in starts_of(ids, [token for _, token in tokens]):
        if not found or start >= found[-1] + len(ids):
            found.append(start)
    return found


def _rows(tokens, start, phrase, what):
    """The rows of the context (a range) of a phrase that begins there among tokens."""
    first, last = tokens[start][0], tokens[start + len(phrase) - 1][0]
    if last - first != len(phrase) - 1:
        raise input_error(f"{what} falls into two parts of {PART_TOKENS} tokens; shorten the prompt before it")
    return range(first, last + 1)
