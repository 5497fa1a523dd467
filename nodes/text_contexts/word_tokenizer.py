"""A tokenizer of the host that knows words: names in a prompt that stand for learned embeddings."""

import re

from .whole_words import is_ordinary, standing_alone

# What an embedding carries beside its vector, in lists of tokens that other nodes may copy: its rows (S, L, D), the
# rank of a word that pools, what makes it while sampling, the tokens that keys read in its place, and whose it is.
ROWS, RANK, MAKER, KEYS, WHOSE = (f"personalization_{name}" for name in ("rows", "rank", "maker", "keys", "name"))


class WordTokenizer:
    """The host's inner tokenizer, text or texts -> {"input_ids"}, with embeddings in the place of each name."""

    def __init__(self, inner, words, encoder, start, adds_end):
        self.inner = inner
        self.words = words
        self._start, self._adds_end = start, adds_end
        self._embeddings = {word.name: self._of(word, rank, encoder) for rank, word in enumerate(words)}
        # longer names first, so that one name may begin like another
        names = sorted(self._embeddings, key=len, reverse=True)
        self._names = re.compile(f"({'|'.join(map(_pattern, names))})")
        # CLIP does not tell capitals apart in ordinary words
        self._in_capitals = {name.lower(): self._embeddings[name] for name in names if is_ordinary(name)}

    def __getattr__(self, name):
        if name == "inner":
            # a copy is asked before it has anything
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __call__(self, text, *args, **kwargs):
        if not isinstance(text, str):
            # nodes with a parser of their own hand over the parts of a prompt
            return {"input_ids": [self(one, *args, **kwargs)["input_ids"] for one in text]}
        pieces = self._names.split(text)
        if len(pieces) == 1:
            return self.inner(text, *args, **kwargs)
        marked = kwargs.get("add_special_tokens", True)
        start, adds_end = (self._start, self._adds_end) if marked else (0, False)
        whole = self.inner("", *args, **kwargs)["input_ids"]
        end = -1 if adds_end else len(whole)
        ids = list(whole[:start])
        for piece in pieces:
            found = self._embeddings.get(piece, self._in_capitals.get(piece.lower()))
            if found is not None:
                ids += found
            elif piece.strip():
                tokens = self.inner(piece, *args, **kwargs)["input_ids"]
                ids += tokens[start : -1 if adds_end else len(tokens)]
        return {"input_ids": [*ids, *whole[end:]]}

    def _of(self, word, rank, encoder):
        """The embeddings of a word, one for each token that it takes."""
        found = []
        for rows in word.vectors(encoder):
            # the host takes a vector in the place of a token: the one with which sampling starts
            embedding = rows[-1, 0].clone()
            setattr(embedding, ROWS, rows)
            setattr(embedding, WHOSE, word.name)
            setattr(embedding, RANK, rank if word.pools else -1)
            if word.maker is not None:
                setattr(embedding, MAKER, word.maker)
            if word.keys_as:
                ids = self.inner(word.keys_as)["input_ids"]
                setattr(embedding, KEYS, tuple(ids[self._start : -1 if self._adds_end else len(ids)]))
            found.append(embedding)
        return found


def _pattern(name):
    """A name as a regular expression; one of letters alone is none within another word."""
    return f"(?i:{standing_alone(name).pattern})" if is_ordinary(name) else re.escape(name)
