"""The ways to read a prompt with words: at each stage and each layer, as values are read and as keys."""

from dataclasses import dataclass
from itertools import product

import torch

from .word_tokenizer import KEYS, MAKER, ROWS

# The stages of words that vary while sampling, and the first timesteps of all but the lowest.
WORD_STAGES = 10
BORDERS = tuple(1000 // WORD_STAGES * stage for stage in range(1, WORD_STAGES))
# So many prompts are encoded at once at most.
MOST = 256


@dataclass(frozen=True)
class PromptReading:
    """One way to read a prompt: at a stage and a layer, as its values are read or as its keys."""

    stage: int
    layer: int
    keys: bool = False

    def part(self, part):
        """The tokens of one part of a prompt, as [(token, weight, ...), ...], read so."""
        read = []
        for token, *rest in part:
            if self.keys and hasattr(token, KEYS):
                read += [(one, *rest) for one in getattr(token, KEYS)]
            else:
                read.append((row_of(token, self.stage, self.layer), *rest))
        # other tokens in a word's place may be more than it has: what stands at the end, padding as a rule, goes
        return read[: len(part)]


def row_of(token, stage, layer):
    """The vector of a token at a stage and a layer; what is no word's stays as it is."""
    rows = getattr(token, ROWS, None)
    return token if rows is None else rows[stage % len(rows), layer % rows.shape[1]]


def key_places(part):
    """Where in a part as keys are read each of its rows is found: the last of what stands there for a word."""
    places, at = [], -1
    for token, *_ in part:
        at += len(getattr(token, KEYS, (token,)))
        places.append(min(at, len(part) - 1))
    return places


def words_in(part):
    """The embeddings of words among the tokens of a part of a prompt."""
    return [token for token, *_ in part if hasattr(token, ROWS)]


def _count_of_layers(words):
    layers = {getattr(word, ROWS).shape[1] for word in words}
    layers |= {getattr(word, MAKER).layers for word in words if hasattr(word, MAKER)}
    layers -= {1}
    if len(layers) > 1:
        raise ValueError(
            f"one prompt contains words with {' and '.join(map(str, sorted(layers)))} layers; use words of one "
            "model family"
        )
    return layers.pop() if layers else 1


def readings_of(words):
    """The PromptReadings of a prompt with these embeddings of words, its plain one first.

    Raises ValueError for words of different numbers of layers, and for too many readings.
    """
    layers = _count_of_layers(words)
    stages = max((len(getattr(word, ROWS)) for word in words), default=1)
    if stages * layers > MOST:
        raise ValueError(
            f"one prompt contains words of {stages} stages and words of {layers} layers, which makes "
            f"{stages * layers} prompts to encode, {MOST} at most: use them in prompts of their own"
        )
    sides = (False, True) if any(hasattr(word, KEYS) for word in words) else (False,)
    # values of the stage where sampling starts first: what the host takes for the whole
    return [PromptReading(*one) for one in product(range(stages - 1, -1, -1), range(layers), sides)]


def unrolled(parts, varies, readings):
    """The parts of a prompt one behind the other, those with words once for each reading."""
    return [
        reading.part(part) for part, changing in zip(parts, varies) for reading in readings[: None if changing else 1]
    ]


def rolled_up(out, parts, varies, readings):
    """(n, T, D) of the unrolled parts -> (readings, parts * T, D), each row at the place of its token."""
    rolled, first = [], 0
    for part, changing in zip(parts, varies):
        found = out[first : first + (len(readings) if changing else 1)]
        first += len(found)
        if changing and readings[-1].keys:
            places = key_places(part)
            found = torch.stack([one[places] if reading.keys else one for one, reading in zip(found, readings)])
        rolled.append(found.expand(len(readings), -1, -1))
    return torch.cat(rolled, 1)
