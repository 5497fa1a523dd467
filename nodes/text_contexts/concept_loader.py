"""Concept files: their words in a CLIP, and copies that the host's own `embedding:` reads."""

import re

import torch
from safetensors.torch import save

from ..files.file_name import file_name_of
from ..files.model_files import EMBEDDINGS
from ..files.new_files import in_folder, write_new
from ..host.choices import check_listed
from ..host.clip_text import check_clip
from ..host.messages import input_error
from .concept_file import Vectors, read_concept
from .concept_words import POOLED, Word
from .taught_clip import entered_word, placed, taught_clip

# Where the host's loaders find text encoders, and its names of them in a file, by width.
_ENCODERS = "text_encoders"
_HOST_NAMES = {768: "clip_l", 1024: "clip_h", 1280: "clip_g"}


def load_concept(clip, choice, word="", pooled="eos"):
    """(the CLIP with the words of a file of the embeddings folder, these words as they go into a prompt).

    word: another name, or as many names as the file has words; one name for several words stands for all of them.
    pooled: where SDXL's pooled text is read. Raises ValueError for a file that does not fit.
    """
    check_listed("pooled", pooled, POOLED)
    check_clip(clip)
    concept = read_concept(choice)
    named = _renamed(concept, entered_word(word, concept.name))
    words = []
    for name, vectors in {**named, **({} if word else concept.parts)}.items():
        rows = placed(clip, vectors, name, concept.name)
        # one row for all stages and layers
        several = {encoder: table[:, None, None] for encoder, table in rows.items()}
        words.append(Word(name, several, pools=pooled == "concept"))
    return taught_clip(clip, words, concept.name), " ".join(named)


def _renamed(concept, word):
    if not word:
        return concept.words
    names = word.split() if len(concept.words) > 1 else [word]
    if len(names) == len(concept.words):
        return dict(zip(names, concept.words.values(), strict=True))
    if len(names) > 1:
        raise input_error(
            f"{concept.name} has {len(concept.words)} words ({', '.join(concept.words)}), word has {len(names)} names; "
            "enter as many, or a single one for all"
        )
    return {word: _joined(list(concept.words.values()))}


def _joined(words):
    """The Vectors of several words, one behind the other."""
    return tuple(
        Vectors(torch.cat([one.rows for one in several]), several[0].encoder) for several in zip(*words, strict=True)
    )


def convert_concept(choice, file_name):
    """Writes each word of a file as <file_name>_<word>.safetensors into the first embeddings folder, and all of them in
    order as <file_name>.safetensors, for `embedding:<name>` in a stock prompt.

    Of a whole text encoder with more rows than CLIP's, which the host does not load, also the encoder without these, as
    <file_name>_text_encoder.safetensors in the first text_encoders folder. Returns the path of the words. Raises
    ValueError for a name that is more than a name, for rows of no known width, and rather than overwrite a file with
    another content; then nothing is written.
    """
    stem = file_name_of(file_name, "cat").removesuffix(".safetensors")
    concept = read_concept(choice)
    files = {f"{stem}.safetensors": _saved(concept, _joined(list(concept.words.values())))}
    if len(concept.words) > 1:
        for number, (name, vectors) in enumerate(concept.words.items()):
            part = re.sub(r"[^\w-]+", "", name)
            taken = not part or f"{stem}_{part}.safetensors" in files
            files[f"{stem}_{f'{part}{number}' if taken else part}.safetensors"] = _saved(concept, vectors)
    paths = {in_folder(EMBEDDINGS, name): data for name, data in files.items()}
    write_new(paths, EMBEDDINGS)
    if concept.encoder:
        encoder = in_folder(_ENCODERS, f"{stem}_text_encoder.safetensors")
        write_new({encoder: save({name: t.contiguous() for name, t in concept.encoder.items()})}, _ENCODERS)
    return str(next(iter(paths)))


def _saved(concept, vectors):
    tensors = {}
    for one in vectors:
        name = f"clip_{one.encoder}" if one.encoder else _HOST_NAMES.get(one.rows.shape[1])
        if name is None:
            raise input_error(
                f"{concept.name} is {one.rows.shape[1]} wide, which no text encoder of SD1.x, SD2.x or SDXL is; choose "
                "another file"
            )
        tensors[name] = one.rows.float().contiguous()
    return save(tensors)
