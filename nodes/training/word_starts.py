"""Where the rows of a word start: at its class word's, at what the encoder makes of that, or at random."""

import torch

from ..host.messages import input_error
from ..host.seeded import seeded_noise
from ..host.token_runs import PART_TOKENS, tokens_between
from ..text_contexts.concept_words import Word, encoders_of, with_words, words_of
from ..text_contexts.taught_clip import misread
from .learned import leaf
from .trained_texts import encoded_tokens, places_of_words

# Of the norms of a table's rows, where the words of an ED-LoRA stop: 0.55 for CLIP-L.
_STOP = 1.4


def started_rows(clip, name, class_word, start, vectors, seed, device=None):
    """{encoder: rows (n, D) that learn} of a new word.

    start: "class word", "crossed" or "random". Raises ValueError for a class word that the start has no use for.
    """
    found = {}
    for encoder in encoders_of(clip):
        table = table_of(clip, encoder)
        if start == "random":
            rows = seeded_noise(f"{seed}/{name}/{encoder}", (vectors, table.shape[1])) * table.float().std().cpu()
        elif start == "crossed":
            rows = crossed_rows(clip, encoder, class_word, vectors, name)
        else:
            ids = _ids(clip, encoder, class_word, vectors, name)
            rows = table[[ids[number % len(ids)] for number in range(vectors)]]
        found[encoder] = leaf(rows, device)
    return found


def crossed_rows(clip, encoder, class_words, vectors, name="the word"):
    """(n, D): what an encoder of a loaded CLIP makes of class words, token by token (Cross Initialization).

    class_words: one, or several apart by commas, whose first tokens' mean row and second tokens' mean row are encoded.
    Raises ValueError for none, and for more tokens than vectors.
    """
    several = [part.strip() for part in class_words.split(",") if part.strip()]
    if len(several) > 1:
        ids = [_ids(clip, encoder, one, PART_TOKENS, name) for one in several]
        table = table_of(clip, encoder)
        used = [[own[place] for own in ids if place < len(own)] for place in range(vectors)]
        tokens = [table[own].float().mean(0) for own in used if own]
    else:
        tokens = _ids(clip, encoder, class_words, vectors, name)
    whole = clip.tokenize("")[encoder][0]
    put = [whole[0], *((token, 1.0) for token in tokens), *whole[1:]][: len(whole)]
    network = getattr(clip.cond_stage_model, f"clip_{encoder}")
    network.reset_clip_options()
    network.set_clip_options({"layer": None, "execution_device": clip.patcher.load_device})
    with torch.no_grad():
        rows = network.encode([[token for token, *_ in put]])[0][0, 1 : 1 + len(tokens)].float().cpu()
    network.reset_clip_options()
    return rows[[number % len(rows) for number in range(vectors)]]


def table_of(clip, encoder):
    """The token table (n, D) of an encoder."""
    return getattr(clip.cond_stage_model, f"clip_{encoder}").transformer.get_input_embeddings().weight.detach()


def norm_to_stop_at(clip):
    """The mean norm of words' rows at which a training of an ED-LoRA stops them."""
    norms = [table_of(clip, encoder).float().norm(dim=1).median() for encoder in encoders_of(clip)]
    return _STOP * float(sum(norms) / len(norms))


def _ids(clip, encoder, text, most, name):
    if not text.strip():
        raise input_error(f"{name} has no class word to start at; enter a word for what it is, such as cat")
    (part, *_) = clip.tokenize(text)[encoder]
    tokenizer = getattr(clip.tokenizer, f"clip_{encoder}")
    ids = tokens_between(part, tokenizer.end_token)
    if not ids or not all(isinstance(token, int) for token in ids):
        raise input_error(f'the class word "{text}" of {name} is no plain text; enter a word such as cat')
    if len(ids) > most:
        raise input_error(
            f'the class word "{text}" of {name} is {len(ids)} tokens and the word has {most} vectors; enter a shorter '
            "class word, or more vectors"
        )
    return ids


def check_word(name, others):
    """ValueError for a word that ordinary text holds, or that is part of another."""
    if not name.strip() or name == "*" or name.isalnum():
        wrong = "is empty" if not name.strip() else f'is "{name}", which occurs in ordinary texts'
        raise input_error(f"word {wrong}; enter one such as <my_cat>")
    clash = next((other for other in others if name in other or other in name), None)
    if clash is not None:
        raise input_error(f'one of the words "{name}" and "{clash}" contains the other; enter others, such as <my_cat>')


def check_known(clip, names):
    """ValueError for a name that stands in a word that the CLIP knows, which would be read for it; an equal one is
    replaced.
    """
    known = [word.name for word in words_of(clip) if word.name not in names]
    for name in names:
        longer = next((other for other in known if name in other), None)
        if longer is not None:
            raise input_error(
                f'the word "{name}" stands in "{longer}", which this clip knows; enter another, or connect the clip '
                "without that word"
            )


def check_read(clip, names):
    """ValueError for a name that does not reach the tokens of a prompt as it is, such as one in the host's brackets."""
    encoders = encoders_of(clip)
    taught = with_words(clip, [Word(name, dict.fromkeys(encoders, torch.zeros(1, 1))) for name in names])
    for name in names if encoders else ():
        if name not in places_of_words(taught.tokenize(name)):
            raise input_error(misread(name))


def check_same_length(clip, name, class_word, vectors):
    """ValueError for a class word that is not as many tokens as a word has vectors: prompts with one and the other are
    compared token by token."""
    for encoder in encoders_of(clip):
        count = len(_ids(clip, encoder, class_word, PART_TOKENS, name))
        if count != vectors:
            raise input_error(
                f'the class word "{class_word}" is {count} tokens and {name} has {vectors} vectors; enter a class word '
                "of as many tokens"
            )


def context_width(clip):
    """The width of the contexts that a loaded CLIP makes."""
    with torch.no_grad():
        return encoded_tokens(clip, clip.tokenize(""))[0].shape[-1]
