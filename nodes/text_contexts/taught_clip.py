"""A CLIP is taught a file's words: under which names, for which of its encoders, and what is said of clashes."""

import re

from ..host.families import CONTEXT_WIDTHS
from ..host.messages import input_error, warn_user
from .concept_words import encoders_of, with_words, words_of

# What the host reads before it looks for words.
_MISREAD = re.compile(r"[()]|embedding:")
# The width of each encoder in published models, and whose it is.
ENCODER_WIDTHS = {768: "SD1.x and SDXL", 1024: "SD2.x", 1280: "SDXL"}


def taught_clip(clip, words, file):
    """The CLIP with some Words of a file; says which of them stood for others before.

    Raises ValueError for a name that stands in one that the CLIP knows already, which then would be read for it.
    """
    known = dict.fromkeys(word.name for word in words_of(clip))
    names = [word.name for word in words]
    for name in names:
        longer = next((other for other in (*known, *names) if name in other and name != other), None)
        if longer is not None and longer in known and longer not in names:
            raise input_error(f'{file}: the word "{name}" stands in "{longer}", which this clip knows; enter another')
    again = sorted(known.keys() & set(names))
    if again:
        warn_user(f"{file}: {', '.join(again)} already defined by an earlier file; replaced")
    return with_words(clip, words)


def file_word(stem, own=""):
    """A name for a word of a file: for one that has none of its own, or an own one that ordinary texts hold."""
    # round brackets and the sign before them are the host's own
    stem = re.sub(r"[<>()\\\s]+", "_", stem)
    return f"<{stem}_{own}>" if own else f"<{stem}>"


def own_word(own, stem, before=0):
    """A name for a word that a file calls `own`; before: how many words the file has before it."""
    own = own.strip()
    if own in ("", "*", "emb_params"):
        return file_word(stem, str(before + 1) if before else "")
    if own.isalnum():
        # in a prompt it would be an ordinary word
        return file_word(stem, own if before else "")
    return file_word(own.strip("<>")) if _MISREAD.search(own) else own


def entered_word(word, file):
    """A word as the user entered it, "" for none; ValueError for one of spaces alone, or that the host misreads."""
    if word and not word.strip():
        raise input_error(f"{file}: word consists of spaces only; enter a name such as <cat>, or leave it empty")
    check_entered(word, file)
    return word.strip()


def check_entered(words, file):
    """ValueError for names that do not reach the tokens of a prompt as they are."""
    if _MISREAD.search(words):
        raise input_error(f"{file}: {misread(words)}")


def misread(word):
    """What to say of a word that does not reach the tokens of a prompt as it is."""
    return (
        f'the word "{word}" is read as something else in a prompt, where round brackets are weights and embedding: '
        "names a file; enter one such as <cat>"
    )


def width_of(clip, encoder):
    """The width of the token table of one of a CLIP's encoders."""
    network = getattr(clip.cond_stage_model, f"clip_{encoder}")
    return network.transformer.get_input_embeddings().weight.shape[1]


def placed(clip, vectors, name, file):
    """{encoder: rows (n, D)} of a word's Vectors for a CLIP.

    Raises ValueError for rows of other widths, and where an encoder of the CLIP has none.
    """
    widths = {encoder: width_of(clip, encoder) for encoder in encoders_of(clip)}
    if not widths:
        raise input_error("this clip is not of SD1.x, SD2.x or SDXL; connect the CLIP of such a checkpoint")
    rows = {}
    for one in vectors:
        width = one.rows.shape[1]
        mine = [encoder for encoder, own in widths.items() if own == width and one.encoder in (None, encoder)]
        if not mine:
            family = ENCODER_WIDTHS.get(width) or CONTEXT_WIDTHS.get(width, "another family")
            raise input_error(
                f"{file}: {name} is {width} wide, so the file is for {family}; the text encoders of this clip are "
                f"{' and '.join(map(str, widths.values()))} wide: connect the clip of the file's family, or choose "
                "another file"
            )
        rows[mine[0]] = one.rows
    missing = set(widths) - set(rows)
    if missing:
        lacking = ", ".join(f"clip_{encoder}" for encoder in sorted(missing))
        raise input_error(
            f"{file}: {name} has nothing for {lacking}, so the file is for SD1.x and this clip is SDXL's; choose the "
            "file's SDXL version, or connect the clip of an SD1.x checkpoint"
        )
    return rows
