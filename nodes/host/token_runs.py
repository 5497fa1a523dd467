"""Words in prompts by their tokens: the parts of a text, what stands between a part's start and end, where one run
stands in another, and the rows of a context that tokens become.
"""

from numbers import Integral

import torch

from .clip_text import tokenized
from .messages import input_error

# CLIP's vocabulary, shared by all text encoders of SD1.x, SD2.x and SDXL.
START, END = 49406, 49407
# Tokens of one part of a prompt: the start, those of the text, the end.
PART_TOKENS = 77


def parts_of_text(clip, text):
    """The parts of a tokenized text: lists of (token, weight, ...), of one encoder, since all share the vocabulary.

    Raises ValueError for a CLIP whose tokens are not those of Stable Diffusion.
    """
    tokens = tokenized(clip, text)
    encoders = [parts for parts in tokens.values() if _begins(parts)] if isinstance(tokens, dict) else []
    if not encoders:
        raise input_error(
            "this CLIP does not read text as Stable Diffusion's does, so the references' words cannot be found; "
            "connect the CLIP of an SD1.5 or SDXL checkpoint"
        )
    return encoders[0]


def _begins(parts):
    return bool(parts) and bool(parts[0]) and is_token(parts[0][0][0], START)


def tokens_in(clip, text):
    """The tokens of a text, a list for each of its parts; ValueError as parts_of_text."""
    return [tokens_between(part) for part in parts_of_text(clip, text)]


def row_of_token(number, place):
    """The row of a context of the token at a place between start and end of part `number`."""
    return number * PART_TOKENS + 1 + place


def is_token(token, number):
    """Whether a token is the one of this number; embeddings stand among the numbers as tensors."""
    return isinstance(token, Integral) and token == number


def tokens_between(part, end=END):
    """The tokens between the start and the first end of a part: [(token, weight, ...), ...]."""
    tokens = [entry[0] for entry in part[1:]]
    stop = next((i for i, token in enumerate(tokens) if is_token(token, end)), len(tokens))
    return tokens[:stop]


def starts_of(ids, tokens):
    """Where in a list of tokens another one stands, overlapping places included; nowhere if it is empty."""
    for start in range(len(tokens) - len(ids) + 1) if ids else ():
        if equal_tokens(ids, tokens[start : start + len(ids)]):
            yield start


def equal_tokens(ids, other):
    """Whether two lists of tokens are equal, embeddings among them by their contents."""
    return len(ids) == len(other) and all(_same(a, b) for a, b in zip(ids, other, strict=True))


def _same(a, b):
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    return not isinstance(a, torch.Tensor) and not isinstance(b, torch.Tensor) and a == b
