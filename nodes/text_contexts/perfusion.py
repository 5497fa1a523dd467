"""Perfusion (arXiv 2305.01644): concepts that edit keys and values where their word is meant, and nowhere else.

Each row of a prompt loses what it has of the concepts' inputs, before the projections; each projected row gets the
concepts' outputs, by how much of them it had. No weight is touched.
"""

from typing import NamedTuple

from ..host.attach import attach
from ..host.bare_unet import on_bare_unet
from ..host.blocks import attention_blocks, cross_attention, name_of_block, unet_of
from ..host.choices import check_listed
from ..host.clip_text import check_clip
from ..host.families import family_of
from ..host.messages import input_error
from .concept_file import Vectors
from .concept_words import Word
from .context_router import ContextRouter
from .perfusion_edit import GatedConcept, Perfusion
from .perfusion_file import read_perfusion
from .taught_clip import entered_word, file_word, placed, taught_clip

LOCKS = ("local", "global")


class Gate(NamedTuple):
    """How much a concept counts, where a row begins to count as it, and how sharply."""

    strength: float = 1.0
    beta: float = 0.7
    tau: float = 0.15


@on_bare_unet
def attach_perfusion(model, clip, choice, gate=Gate(), *, word="", key_lock="local", superclass=""):  # noqa: B008
    """(the MODEL and the CLIP with the concepts of a Perfusion file, their words).

    gate: strength 0 is off, 1 as published, linear; key_lock: "global" lets keys read the superclass in the word's
    place. Raises ValueError for what does not fit.
    """
    check_listed("key_lock", key_lock, LOCKS)
    unet = unet_of(model, "Perfusion")
    check_clip(clip)
    if family_of(model) not in ("SD1.5", "SD2.x"):
        raise input_error(f"Perfusion files are for SD1.x and SD2.x; this model is {family_of(model)}")
    file = read_perfusion(choice, _blocks(unet))
    instead = superclass.strip() or file.superclass
    if key_lock == "global" and not instead:
        raise input_error(f'{file.name} names no class; enter its class word, such as "teddy", as superclass')
    names = _names(file, entered_word(word, file.name))
    keys_as = instead if key_lock == "global" and gate.strength else ""
    words = [
        Word(name, {e: t[:, None, None] for e, t in placed(clip, [Vectors(v[None])], name, file.name).items()},
             keys_as=keys_as)
        for name, v in zip(names, file.vectors, strict=True)
    ]  # fmt: skip
    if gate.strength:
        concepts = tuple(GatedConcept(edits, file.metric, *gate) for edits in file.edits)
        if keys_as:
            model = attach(model, ContextRouter(("Perfusion",)))
        model = attach(model, Perfusion(concepts))
    return model, taught_clip(clip, words, file.name), " ".join(names)


def _names(file, word):
    count = len(file.vectors)
    if count == 1:
        return [word or file_word(file.stem)]
    names = word.split() if word else [file_word(file.stem, str(number)) for number in range(1, count + 1)]
    if len(names) != count:
        raise input_error(f"{file.name} has {count} concepts, word has {len(names)} names; enter as many")
    return names


def _blocks(unet):
    """{host key: (LDM name of its cross-attention, width of its keys, width of the context)}."""
    found = {}
    for block in attention_blocks(unet):
        to_k = cross_attention(unet, block).to_k
        found[block] = f"{name_of_block(block)}.attn2", to_k.out_features, to_k.in_features
    return found
