"""ProSpect files (arXiv 2305.16225): a word that means another thing in each tenth of sampling."""

import torch

from ...kernels.stage_rows import stage_rows
from ..files.model_files import EMBEDDINGS, path_of
from ..files.safe_files import read_contents
from ..host.attach import attach
from ..host.bare_unet import on_bare_unet
from ..host.blocks import unet_of
from ..host.clip_text import check_clip
from ..host.messages import input_error
from .concept_file import Vectors
from .concept_words import Word
from .context_router import ContextRouter
from .mistaken_words import not_the_kind
from .readings import WORD_STAGES
from .taught_clip import entered_word, file_word, placed, taught_clip

_KIND = "ProSpect"
_NEEDED = (
    *(f"{norm}.{part}" for norm in ("norm1", "norm3") for part in ("weight", "bias")),
    *(f"{name}.{part}" for name in ("attn1", "attn2") for part in ("to_v.weight", "to_out.0.weight", "to_out.0.bias")),
    *(f"{name}.{part}" for name in ("ff.net.0.proj", "ff.net.2") for part in ("weight", "bias")),
)


@on_bare_unet
def attach_prospect(model, clip, choice, word=""):
    """(the MODEL and the CLIP with the word of a ProSpect file, the word).

    Beside it the CLIP knows <word:1> to <word:10>, which mean everywhere what it means in that stage; 1 is where
    sampling starts. Raises ValueError for files that do not fit.
    """
    unet_of(model, _KIND)
    check_clip(clip)
    path = path_of(choice, EMBEDDINGS)
    name = entered_word(word, path.name) or file_word(path.stem)
    rows = _rows(read_contents(path), path.name)
    words = []
    for own, table in {name: rows, **_fixed(name, rows)}.items():
        # (tokens, stages, layers): placed by the width of the rows
        tables = placed(clip, [Vectors(table)], own, path.name)
        words.append(Word(own, {encoder: found[None, :, None] for encoder, found in tables.items()}))
    return attach(model, ContextRouter((_KIND,))), taught_clip(clip, words, path.name), name


def _fixed(name, rows):
    return {f"<{name.strip('<>')}:{stage}>": rows[WORD_STAGES - stage :][:1] for stage in range(1, WORD_STAGES + 1)}


def _rows(contents, file):
    """(10, D) by rising timesteps."""
    found = contents if isinstance(contents, dict) else {}
    weights, start = found.get("attention"), found.get("initial_embeddings")
    if not isinstance(weights, dict) or not isinstance(start, torch.Tensor):
        raise not_the_kind(contents, file, _KIND)
    missing = [name for name in _NEEDED if not isinstance(weights.get(name), torch.Tensor)]
    if missing:
        raise input_error(f"{file} lacks {missing[0]} of ProSpect's network; download the file again")
    width = start.shape[-1]
    made = weights["ff.net.2.weight"].shape[0]
    if made != WORD_STAGES * width or start.numel() != width:
        raise input_error(
            f"{file} makes {made} numbers out of an embedding of {start.numel()}; ProSpect makes {WORD_STAGES} rows of "
            f"{width}, {WORD_STAGES * width}: download the file again"
        )
    try:
        return stage_rows({name: tensor.float() for name, tensor in weights.items()}, start.float().reshape(1, -1))
    except RuntimeError as error:
        raise input_error(f"{file} is damaged: the parts of its network do not fit together") from error
