"""New words of a CLIP: names in a prompt that stand for learned embeddings.

A CLIP with words is a clone whose tokenizers put embeddings in the place of a name, and whose encoder gives Contexts
where such embeddings vary: by cross-attention (P+, arXiv 2303.09522), by stage of sampling (ProSpect, arXiv
2305.16225), or made by a network at each timestep (NeTI, arXiv 2305.15391). Everything else is the host's own.
"""

import copy
from dataclasses import dataclass
from functools import partial

from .word_encoding import encoded_with_words
from .word_tokenizer import WordTokenizer

# The text encoders of SD1.x and SDXL ("l"), SDXL ("g"), SD2.x ("h").
ENCODERS = ("l", "g", "h")
POOLED = ("concept", "eos")


@dataclass(frozen=True, eq=False)
class Word:
    """A name and its embeddings.

    rows: {encoder: (L, D)}, L is 1 for a row that suits all layers; or (S, L, D) with other rows in each of S stages,
    by rising timesteps; or (n, S, L, D) for a word that takes n tokens. pools: SDXL's pooled text is read at this word
    and not at the end of the prompt, as the code of some trainers does. keys_as: the text that keys read in its place.
    maker: what makes its rows while sampling (see made_contexts.py); its `rows` are of the plain prompt then.
    """

    name: str
    rows: dict
    pools: bool = False
    keys_as: str = ""
    maker: object = None

    def vectors(self, encoder):
        """(n, S, L, D): its rows for an encoder."""
        rows = self.rows[encoder].float()
        return rows[(None,) * (4 - rows.ndim)]


def with_words(clip, words):
    """A clone of a CLIP that knows these words, beside those that it knows already; later ones replace earlier ones."""
    known = {word.name: word for word in words_of(clip)}
    for word in words:
        # to the end: the last word that was added is the one that pools
        known.pop(word.name, None)
        known[word.name] = word
    clone = clip.clone()
    clone.tokenizer = copy.copy(clip.tokenizer)
    for encoder in encoders_of(clip):
        tokenizer = copy.copy(getattr(clone.tokenizer, f"clip_{encoder}"))
        inner = getattr(tokenizer.tokenizer, "inner", tokenizer.tokenizer)
        ends = tokenizer.tokens_start, bool(tokenizer.tokenizer_adds_end_token)
        tokenizer.tokenizer = WordTokenizer(inner, tuple(known.values()), encoder, *ends)
        setattr(clone.tokenizer, f"clip_{encoder}", tokenizer)
    # a shallow copy shares the encoder's modules: it is the same network with another way to call it
    clone.cond_stage_model = copy.copy(clip.cond_stage_model)
    encode = clip.cond_stage_model.encode_token_weights
    if isinstance(encode, partial) and encode.func is encoded_with_words:
        encode = encode.args[2]
    own = partial(encoded_with_words, clone.cond_stage_model, clip.patcher.model, encode)
    clone.cond_stage_model.encode_token_weights = own
    return clone


def encoders_of(clip):
    """The encoders of a CLIP that can know words."""
    return [encoder for encoder in ENCODERS if hasattr(clip.tokenizer, f"clip_{encoder}")]


def words_of(clip):
    """The words that a CLIP knows."""
    for encoder in encoders_of(clip):
        tokenizer = getattr(clip.tokenizer, f"clip_{encoder}").tokenizer
        if isinstance(tokenizer, WordTokenizer):
            return tokenizer.words
    return ()
