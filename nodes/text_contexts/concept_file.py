"""Files of learned words, of whatever trainer, told by their contents: names with their vectors for each encoder."""

import json
import re
from dataclasses import dataclass

import torch

from ..files.disk_errors import UnreadableFileError, open_to_read
from ..files.model_files import EMBEDDINGS, path_of
from ..files.safe_files import read_contents
from ..files.told_kinds import kind_of
from ..host.messages import input_error, warn_user
from .mistaken_words import not_the_kind
from .taught_clip import own_word

# How many tokens CLIP's own table has; rows behind are words.
CLIP_TOKENS = 49408
# Bytes of the names beside a table.
_LONGEST_NAMES = 1 << 20
# A word inside a LoRA file: its name, which may hold dots, and whose rows these are.
_BUNDLED = re.compile(r"bundle_emb\.(.*?)(?:\.clip_([lg])|\.string_to_param\..*|\.emb_params)?", re.DOTALL)
_TABLES = ("weight", "text_model.embeddings.token_embedding.weight", "token_embedding.weight")


@dataclass(frozen=True, eq=False)
class Vectors:
    """The rows (n, D) of a word for one text encoder; its name, or None where the width tells it."""

    rows: torch.Tensor
    encoder: str | None = None


@dataclass(frozen=True, eq=False)
class ConceptFile:
    """What one file teaches."""

    name: str
    # {word: (Vectors, ...)}, in order
    words: dict
    # further names that stand for single rows of them
    parts: dict
    # the text encoder around a table with words, {name: tensor}, with CLIP's own rows alone; {} without one
    encoder: dict


def read_concept(choice):
    """The ConceptFile of a listed file. Raises ValueError, in one sentence, for files of another kind."""
    path = path_of(choice, EMBEDDINGS)
    contents = read_contents(path)
    found = concept_of(contents, path)
    if not found.words:
        raise not_the_kind(contents, path.name, "words")
    return found


def concept_of(contents, path):
    """The ConceptFile of a file's contents; without words if it holds none. Raises ValueError for damaged ones."""
    reading = _Reading(path)
    reading.read(contents)
    return ConceptFile(path.name, reading.words, reading.parts, reading.encoder)


class _Reading:
    """One file, read part by part."""

    def __init__(self, path):
        self.path, self.file = path, path.name
        self.words, self.parts, self.encoder = {}, {}, {}

    def read(self, contents):
        if isinstance(contents, list):
            for one in contents:
                self.read(one)
        elif isinstance(contents, dict) and (kind_of(contents) in ("words", None) or "modifier_token" in contents):
            self._dict(contents)

    def _dict(self, contents):
        bundles = {key: contents[key] for key in contents if isinstance(key, str) and key.startswith("bundle_emb.")}
        key = next((key for key in _TABLES if isinstance(contents.get(key), torch.Tensor)), None)
        table = contents.get(key)
        if isinstance(contents.get("string_to_param"), dict):
            for name, rows in contents["string_to_param"].items():
                self._word(str(name), self._vectors(name, rows))
        elif {"clip_l", "clip_g", "clip_h"} & contents.keys():
            self._pair(contents, {"clip_l": "l", "clip_g": "g", "clip_h": "h"})
        elif {"text_encoders_0", "text_encoders_1"} & contents.keys():
            self._pair(contents, {"text_encoders_0": "l", "text_encoders_1": "g"})
        elif "emb_params" in contents:
            self._word("emb_params", self._vectors("emb_params", contents["emb_params"]))
        elif bundles:
            self._bundles(bundles, len(contents) - len(bundles))
        elif table is not None and table.ndim == 2 and len(table) > CLIP_TOKENS:
            self._table(table)
            others = {name: one for name, one in contents.items() if isinstance(one, torch.Tensor)}
            self.encoder = {**others, key: table[:CLIP_TOKENS]} if len(others) > 1 else {}
        elif isinstance(contents.get("modifier_token"), dict):
            for name, rows in contents["modifier_token"].items():
                several = rows if isinstance(rows, list) else [rows]
                self._word(str(name), *(self._vectors(name, one) for one in several))
            if len(contents) > 1 and self.words:
                warn_user(f"{self.file}: only its words are read here; load its weights with Load Custom Diffusion")
        elif contents and all(isinstance(value, torch.Tensor) and value.ndim in (1, 2) for value in contents.values()):
            for name, rows in contents.items():
                self._word(str(name), self._vectors(name, rows))

    def _pair(self, contents, encoders):
        found = {name: contents[name] for name in encoders if name in contents}
        vectors = [self._vectors(name, rows, encoders[name]) for name, rows in found.items()]
        counts = {len(one.rows) for one in vectors}
        if len(counts) > 1:
            raise input_error(
                f"{self.file} is damaged: it has {' and '.join(map(str, sorted(counts)))} rows for its text encoders; "
                "download the file again"
            )
        self._word("", *vectors)
        if counts != {1}:
            for number in range(counts.pop()):
                rows = (Vectors(one.rows[number : number + 1], one.encoder) for one in vectors)
                self.parts[f"<s{number}>"] = tuple(rows)

    def _bundles(self, contents, others):
        found = {}
        for key, rows in contents.items():
            name, encoder = _BUNDLED.fullmatch(key).groups()
            found.setdefault(name, []).append(self._vectors(key, rows, encoder))
        for name, several in found.items():
            self._word(f"<{name.strip('<>')}>", *several)
        if others:
            warn_user(f"{self.file}: only its words are read here; load the LoRA in it with Load LoRA")

    def _table(self, table):
        rows = table[CLIP_TOKENS:].clone()
        names = _names_beside(self.path)
        for number, row in enumerate(rows):
            name = names.get(CLIP_TOKENS + number) or f"<v{number}>"
            self._word(name, self._vectors(name, row))
        if not names:
            warn_user(
                f"{self.file} does not say what its words are called, so they are {', '.join(self.words)}; put the "
                "trainer's added_tokens.json beside it, or into a folder named tokenizer beside it, for their own names"
            )

    def _word(self, name, *vectors):
        word = own_word(name, self.path.stem, before=len(self.words))
        known, widths = self.words.get(word, ()), {one.rows.shape[1] for one in vectors}
        # a part for each text encoder
        others = [one for one in known if one.rows.shape[1] not in widths]
        if len(others) < len(known):
            warn_user(f"{self.file} has the word {word} twice; the last one counts")
        self.words[word] = (*others, *vectors)

    def _vectors(self, name, rows, encoder=None):
        fits = isinstance(rows, torch.Tensor) and rows.is_floating_point() and rows.ndim in (1, 2) and rows.numel()
        if not fits:
            raise input_error(f"{self.file} is damaged: {name} is no table of vectors; download the file again")
        return Vectors((rows[None] if rows.ndim == 1 else rows).detach().clone(), encoder)


def _names_beside(path):
    """{row of the table: word} of the files that trainers write beside it; {} without one."""
    for folder in (path.parent / "tokenizer", path.parent, path.parent.parent / "tokenizer"):
        file = folder / "added_tokens.json"
        if file.is_file() and file.stat().st_size <= _LONGEST_NAMES:
            try:
                with open_to_read(file) as opened:
                    named = json.loads(opened.read())
            except (OSError, ValueError, UnreadableFileError, RecursionError):
                continue
            if isinstance(named, dict):
                return {number: name for name, number in named.items() if isinstance(number, int) and name.strip()}
    return {}
