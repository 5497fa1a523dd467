"""New words of a CLIP: names in a prompt that stand for learned embeddings, one per cross-attention if layer-wise.

A CLIP with words is a clone whose tokenizers put an embedding in the place of a name, and whose encoder gives one
context per layer where such embeddings have several rows (P+, arXiv 2303.09522). Everything else is the host's own.
"""

import copy
import re
from dataclasses import dataclass
from functools import partial

import torch

from ..host.layered_prompts import LAYERS, PLAIN

# What an embedding carries beside its first row, in lists of tokens that other nodes may copy.
ROWS, RANK = "personalization_rows", "personalization_rank"
ENCODERS = ("l", "g")
POOLED = ("concept", "eos")


@dataclass(frozen=True, eq=False)
class Word:
    """A name and its embeddings: rows of encoder "l" (L, D), and of "g" for SDXL; L is 1 for one that suits all layers.

    pools: SDXL's pooled text is read at this word and not at the end of the prompt, as the published code does.
    """

    name: str
    rows: dict
    pools: bool = False


def with_words(clip, words):
    """A clone of a CLIP that knows these words, beside those that it knows already; later ones replace earlier ones."""
    known = {word.name: word for word in words_of(clip)}
    for word in words:
        # to the end: the last word that was added is the one that pools
        known.pop(word.name, None)
        known[word.name] = word
    clone = clip.clone()
    clone.tokenizer = copy.copy(clip.tokenizer)
    for encoder in ENCODERS:
        if not hasattr(clone.tokenizer, f"clip_{encoder}"):
            continue
        tokenizer = copy.copy(getattr(clone.tokenizer, f"clip_{encoder}"))
        inner = getattr(tokenizer.tokenizer, "inner", tokenizer.tokenizer)
        ends = tokenizer.tokens_start, bool(tokenizer.tokenizer_adds_end_token)
        tokenizer.tokenizer = WordTokenizer(inner, tuple(known.values()), encoder, *ends)
        setattr(clone.tokenizer, f"clip_{encoder}", tokenizer)
    # a shallow copy shares the encoder's modules: it is the same network with another way to call it
    clone.cond_stage_model = copy.copy(clip.cond_stage_model)
    encode = clip.cond_stage_model.encode_token_weights
    if isinstance(encode, partial) and encode.func is encoded_by_layer:
        encode = encode.args[1]
    clone.cond_stage_model.encode_token_weights = partial(encoded_by_layer, clone.cond_stage_model, encode)
    return clone


def words_of(clip):
    """The words that a CLIP knows."""
    for encoder in ENCODERS:
        tokenizer = getattr(getattr(clip.tokenizer, f"clip_{encoder}", None), "tokenizer", None)
        if isinstance(tokenizer, WordTokenizer):
            return tokenizer.words
    return ()


class WordTokenizer:
    """The host's inner tokenizer, text -> {"input_ids"}, with an embedding in the place of each name."""

    def __init__(self, inner, words, encoder, start, adds_end):
        self.inner = inner
        self.words = words
        self._start, self._adds_end = start, adds_end
        self._embeddings = {word.name: _embedding(word, rank, encoder) for rank, word in enumerate(words)}
        # longer names first, so that one name may begin like another
        names = sorted(self._embeddings, key=len, reverse=True)
        self._names = re.compile(f"({'|'.join(map(re.escape, names))})")

    def __getattr__(self, name):
        if name == "inner":
            # a copy is asked before it has anything
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __call__(self, text, *args, **kwargs):
        pieces = self._names.split(text)
        if len(pieces) == 1:
            return self.inner(text, *args, **kwargs)
        whole = self.inner("", *args, **kwargs)["input_ids"]
        end = -1 if self._adds_end else len(whole)
        ids = list(whole[: self._start])
        for piece in pieces:
            if piece in self._embeddings:
                ids.append(self._embeddings[piece])
            elif piece.strip():
                tokens = self.inner(piece, *args, **kwargs)["input_ids"]
                ids += tokens[self._start : -1 if self._adds_end else len(tokens)]
        return {"input_ids": [*ids, *whole[end:]]}


def _embedding(word, rank, encoder):
    rows = word.rows[encoder].float()
    # the host takes a vector in the place of a token
    embedding = rows[0].clone()
    setattr(embedding, ROWS, rows)
    setattr(embedding, RANK, rank if word.pools else -1)
    return embedding


def encoded_by_layer(model, encode, tokens):
    """What the host's encode_token_weights returns, with the contexts of all layers where words have several rows.

    model: the CLIP's network; encode: its own way; tokens: {"l": [[(token, weight, ...), ...], ...], "g": ...}.
    Raises ValueError for words of different numbers of layers in one prompt.
    """
    layers = {len(rows) for lists in tokens.values() for rows in _rows_in(lists)} - {1}
    if len(layers) > 1:
        raise ValueError(
            f"one prompt contains words with {' and '.join(map(str, sorted(layers)))} layers; use words of one "
            "model family"
        )
    if not layers:
        return _pooled_at_word(model, tokens, encode(tokens))
    layers = layers.pop()
    # encoders may hold a prompt in different numbers of parts; the host cuts to the fewest
    parts = min(len(lists) for lists in tokens.values())
    varies = [any(any(True for _ in _rows_in([lists[part]])) for lists in tokens.values()) for part in range(parts)]
    flat = {name: _unrolled(lists, varies, layers) for name, lists in tokens.items()}
    out, *rest = encode(flat)
    contexts = _rolled(out[0], varies, layers)
    extra = {**(rest[1] if len(rest) > 1 else {}), LAYERS: contexts, PLAIN: contexts[:1]}
    return _pooled_at_word(model, tokens, (contexts[:1], rest[0], extra))


def _rows_in(lists):
    return (getattr(token, ROWS) for part in lists for token, *_ in part if hasattr(token, ROWS))


def _unrolled(lists, varies, layers):
    """The parts of a prompt one behind the other, those with words once per layer."""
    flat = []
    for part, changing in zip(lists, varies):
        for layer in range(layers if changing else 1):
            flat.append([(_row(token, layer), *rest) for token, *rest in part])
    return flat


def _row(token, layer):
    rows = getattr(token, ROWS, None)
    return token if rows is None else rows[layer % len(rows)]


def _rolled(out, varies, layers):
    """(n * T, D) of the unrolled parts -> (L, parts * T, D)."""
    pieces = out.unflatten(0, (sum(layers if changing else 1 for changing in varies), -1))
    rolled, first = [], 0
    for changing in varies:
        count = layers if changing else 1
        rolled.append(pieces[first : first + count].expand(layers, -1, -1))
        first += count
    return torch.cat(rolled, 1)


def _pooled_at_word(model, tokens, out):
    """The output with SDXL's pooled text read at the word that pools, if the prompt holds one."""
    encoder = getattr(model, "clip_g", None)
    first = tokens.get("g", [[]])[0] if encoder is not None else []
    ranks = [getattr(token, RANK, -1) for token, *_ in first]
    if max(ranks, default=-1) < 0:
        return out
    layer = encoder.layer, encoder.layer_idx
    encoder.set_clip_options({"layer": None})
    try:
        # the last hidden state after the final norm, at the first place of the word that was added last
        hidden = encoder.encode([[_row(token, 0) for token, *_ in first]])[0]
    finally:
        encoder.layer, encoder.layer_idx = layer
    pooled = hidden[:, ranks.index(max(ranks))]
    if encoder.return_projected_pooled:
        pooled = encoder.transformer.text_projection(pooled)
    return out[0], pooled.float().to(out[0].device), *out[2:]
