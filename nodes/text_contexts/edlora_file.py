"""ED-LoRA files (Mix-of-Show, arXiv 2305.18292): new words with their embeddings, and LoRAs for UNet and text encoders.

A `.pth` of nested dicts, or the same as safetensors with the levels of a name joined by a dot or a slash.
"""

import re
from dataclasses import dataclass

from ..files.model_files import LORAS, path_of
from ..files.safe_files import read_tensors
from ..files.told_kinds import KINDS, kind_of
from ..host.families import CONTEXT_WIDTHS
from ..host.messages import input_error

# What the embeddings say that the converter puts beside a LoRA.
WORDS_ONLY = "personalization_edlora_words"

_EMBEDDINGS, _TEXTS = ("new_concept_embedding", "new_concept_embedding_2"), ("text_encoder", "text_encoder_2")
_PARTS = re.compile(
    r"^(?:params[./])?(new_concept_embedding_2|new_concept_embedding|text_encoder_2|text_encoder|unet)[./](.+)$"
)
_HALF = re.compile(r"^(.+)\.lora_(down|up)\.weight$")


@dataclass(frozen=True, eq=False)
class EDLoRA:
    """The contents of one file, checked."""

    name: str
    # {word: (rows of encoder 1, rows of encoder 2 or None)}, in the file's order
    words: dict
    # {module: {"down", "up"}}
    unet: dict
    texts: tuple
    is_sdxl: bool

    @property
    def layers(self):
        """Rows of each word: one per cross-attention, or 1."""
        return max(len(rows) for pair in self.words.values() for rows in pair if rows is not None)

    @property
    def width(self):
        """Width of the contexts that its UNet part reads; None if it has no such part."""
        keys = (half["down"] for module, half in self.unet.items() if module.endswith(("attn2.to_k", "attn2.to_v")))
        return next((down.shape[1] for down in keys), None)

    @property
    def family(self):
        """The family it says it is for; None for one that says nothing known."""
        return "SDXL" if self.is_sdxl else CONTEXT_WIDTHS.get(self.width)


def read_edlora(name):
    """The EDLoRA of a listed file. Raises ValueError, in one sentence, for files that are none."""
    path = path_of(name, LORAS)
    tensors, metadata = read_tensors(path)
    file = path.name
    kind = kind_of(tensors)
    # names of a LoRA may be those of an ED-LoRA that is cut
    if kind not in (None, "ED-LoRA", "LoRA", "UNet"):
        what, node = KINDS[kind]
        raise input_error(f"{file} is not an ED-LoRA but {what}; load it with {node}")
    parts = {part: {} for part in (*_EMBEDDINGS, *_TEXTS, "unet")}
    for key, tensor in tensors.items():
        match = _PARTS.match(key)
        if not match:
            raise input_error(f"{file} is not an ED-LoRA: it contains {key}; load an ordinary LoRA with Load LoRA")
        parts[match[1]][match[2]] = tensor.detach()
    words = _words(file, *(parts[name] for name in _EMBEDDINGS))
    unet, *texts = (_halves(file, part, parts[part]) for part in ("unet", *_TEXTS))
    is_sdxl = bool(parts["new_concept_embedding_2"] or texts[1])
    edlora = EDLoRA(file, words, unet, tuple(texts), is_sdxl)
    if not unet and edlora.layers > 1 and WORDS_ONLY not in metadata:
        raise input_error(f"{file} is not an ED-LoRA: its unet part is missing; download the file again")
    if is_sdxl and any(second is None for _, second in words.values()):
        raise input_error(
            f"{file} lacks new_concept_embedding_2, the words for SDXL's second text encoder; download the file again"
        )
    return edlora


def _words(file, first, second):
    if not first:
        raise input_error(
            f"{file} is not an ED-LoRA: new_concept_embedding, its words, is missing; choose an ED-LoRA file"
        )
    if second and set(second) != set(first):
        raise input_error(f"{file} has different words for its two text encoders; download the file again")
    words = {word: (_rows(file, word, rows), None) for word, rows in first.items()}
    for word, rows in second.items():
        words[word] = words[word][0], _rows(file, word, rows)
    counts = sorted({len(rows) for pair in words.values() for rows in pair if rows is not None} - {1})
    if len(counts) > 1:
        raise input_error(
            f"{file} is damaged: its words have {' and '.join(map(str, counts))} rows; download the file again"
        )
    return words


def _rows(file, word, rows):
    if not word.strip():
        raise input_error(f"{file} contains a word without a name; download the file again")
    rows = rows[None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or not rows.numel():
        raise input_error(
            f"{file} has {word} as {tuple(rows.shape)} instead of one row per layer; download the file again"
        )
    return rows


def _halves(file, part, tensors):
    found = {}
    for key, tensor in tensors.items():
        match = _HALF.match(key)
        if not match:
            raise input_error(f"{file} is not an ED-LoRA: its {part} contains {key}, which is not half of a LoRA")
        found.setdefault(match[1], {})[match[2]] = tensor
    for module, half in found.items():
        if set(half) != {"down", "up"}:
            raise input_error(f"{file} lacks the other half of {part}.{module}; download the file again")
        down, up = half["down"], half["up"]
        if min(down.ndim, up.ndim) < 2 or down.shape[0] != up.shape[1]:
            raise input_error(
                f"{file} is damaged: the halves of {part}.{module} are {tuple(down.shape)} and {tuple(up.shape)}, "
                "which cannot be multiplied; download the file again"
            )
    return found
