"""Words in prompts by their tokens: what stands between a part's start and end, and where one run stands in another."""

from numbers import Integral

import torch

# CLIP's vocabulary, shared by all text encoders of SD1.x, SD2.x and SDXL.
START, END = 49406, 49407


def is_token(token, number):
    """Whether a token is the one of this number; embeddings stand among the numbers as tensors."""
    return isinstance(token, Integral) and token == number


def tokens_between(part, end=END):
    """The tokens between the start and the first end of a part: [(token, weight, ...), ...]."""
    tokens = [entry[0] for entry in part[1:]]
    stop = next((i for i, token in enumerate(tokens) if is_token(token, end)), len(tokens))
    return tokens[:stop]


def equal_tokens(ids, other):
    """Whether two lists of tokens are equal, embeddings among them by their contents."""
    return len(ids) == len(other) and all(_same(a, b) for a, b in zip(ids, other, strict=True))


def _same(a, b):
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    return not isinstance(a, torch.Tensor) and not isinstance(b, torch.Tensor) and a == b
