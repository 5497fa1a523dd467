"""The references' words, by which their objects are told apart, and what is wrong or doubtful about them."""

from dataclasses import replace

from ..host.messages import input_error, warn_user
from ..references.reference_views import label_of
from .phrases import phrases_of

PHRASE_SOURCES = ("standalone", "prompt")


def read_words(base, adapter, clip, references, prompt, source):
    """One Phrase per reference; what is doubtful about them is said on the node.

    source: one of PHRASE_SOURCES. Raises ValueError for a CLIP of another family, and for missing words of several.
    """
    labels = [label_of(number, reference) for number, reference in enumerate(references, 1)]
    if source == "prompt" and not prompt:
        warn_user(
            'phrase_source is "prompt" but prompt is empty, so each word is read by itself; enter the positive prompt'
        )
    phrases = phrases_of(base, clip, [reference.word for reference in references], prompt)
    for label, phrase in zip(labels, phrases, strict=True):
        if phrase.words and phrase.rows.shape[-1] != adapter.width:
            raise input_error(
                f"this CLIP's embeddings are {phrase.rows.shape[-1]} wide, the model expects {adapter.width}; "
                "connect the CLIP of the checkpoint"
            )
        if prompt and phrase.words and not phrase.positions:
            warn_user(
                f"{label}: its word is not in the prompt, so its place in the picture is a guess; use a word of "
                "the prompt"
            )
    check_words(phrases, labels)
    return tuple(phrases if source == "prompt" else (replace(phrase, positions=None) for phrase in phrases))


def check_words(phrases, labels):
    """ValueError for several objects of which one has no word; what will blend is said."""
    if len(phrases) < 2:
        return
    for label, phrase in zip(labels, phrases, strict=True):
        if not phrase.tokens:
            raise input_error(
                f"{label} has no word, and the words tell several references apart; enter the prompt's word for it in "
                "Add Reference"
            )
    doubled = {phrase.words for phrase in phrases if sum(other.words == phrase.words for other in phrases) > 1}
    for words in sorted(doubled):
        warn_user(
            f'several references have the word "{words}", so their pictures blend in equal parts wherever their '
            "regions overlap; give them different words, or separate regions"
        )
