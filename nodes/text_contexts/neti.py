"""NeTI mappers (arXiv 2305.15391): a word whose vectors a small network makes for each timestep and layer."""

from functools import lru_cache

import torch

from ...kernels.word_mapper import HIDDEN, mapped_word
from ..files.model_files import EMBEDDINGS, path_of
from ..files.safe_files import read_contents
from ..host.attach import attach
from ..host.bare_unet import on_bare_unet
from ..host.blocks import attention_blocks, unet_of
from ..host.clip_text import check_clip
from ..host.contexts import FIRST_TIMESTEP
from ..host.families import family_of
from ..host.messages import input_error
from .concept_words import Word, encoders_of
from .context_router import ContextRouter
from .mistaken_words import not_the_kind
from .taught_clip import entered_word, own_word, taught_clip, width_of

_KIND = "NeTI"
_LAYERS = 16
_NEEDED = tuple(
    f"{name}.{part}" for name in ("net.1", "net.2", "net.4", "net.5", "output_layer.0") for part in ("weight", "bias")
)


class WordMaker:
    """What makes a NeTI word's rows: see made_contexts.py. Immutable."""

    layers = _LAYERS

    def __init__(self, weights, width, truncation, norm):
        self.weights, self.width, self.truncation, self.norm = weights, width, truncation, norm
        self._made = lru_cache(1)(self._make)

    def __deepcopy__(self, memo):
        return self

    def at(self, timestep):
        """(rows (16, D), what is added to the encoder's states for values (16, D) or None) at a timestep."""
        return self._made(float(timestep))

    @property
    def contents(self):
        return self.weights, self.truncation, self.norm

    def _make(self, timestep):
        made = mapped_word(self.weights, timestep, _LAYERS, truncation=self.truncation, norm=self.norm)
        return made[:, : self.width], made[:, self.width :] if made.shape[1] > self.width else None


@on_bare_unet
def attach_neti(model, clip, choice, truncation=HIDDEN, word=""):
    """(the MODEL and the CLIP with the word of a NeTI mapper, the word).

    truncation: how many of the network's hidden units count; fewer give up likeness for what the prompt says. Raises
    ValueError for models other than SD1.x and files that do not fit.
    """
    layers = len(attention_blocks(unet_of(model, _KIND)))
    check_clip(clip)
    if family_of(model) != "SD1.5" or encoders_of(clip) != ["l"] or layers != _LAYERS:
        raise input_error(
            f"NeTI files are for SD1.x, with {_LAYERS} cross-attentions; this model is {family_of(model)} with "
            f"{layers}: connect model and clip of an SD1.x checkpoint"
        )
    path = path_of(choice, EMBEDDINGS)
    contents = read_contents(path)
    maker = _maker(contents, path.name, width_of(clip, "l"), truncation)
    own = _part(contents, "cfg", "data").get("placeholder_token")
    name = entered_word(word, path.name) or own_word(own if isinstance(own, str) else "", path.stem)
    plain = _plain(path, own, maker)
    words = [Word(name, {"l": plain.reshape(1, -1)}, maker=maker)]
    return attach(model, ContextRouter((_KIND,))), taught_clip(clip, words, path.name), name


def _part(contents, *names):
    for name in names:
        contents = contents.get(name) if isinstance(contents, dict) else None
    return contents if isinstance(contents, dict) else {}


def _maker(contents, file, width, truncation):
    weights = {name: t.float() for name, t in _part(contents, "state_dict").items() if isinstance(t, torch.Tensor)}
    if "output_layer.0.weight" not in weights:
        raise not_the_kind(contents, file, _KIND)
    settings = _part(contents, "cfg", "model")
    encoding = _part(contents, "encoder").get("w")
    if isinstance(encoding, torch.Tensor):
        weights.setdefault("encoder.w", encoding.float())
    if not settings.get("use_positional_encoding", "encoder.w" in weights):
        weights.pop("encoder.w", None)
    needed = (*_NEEDED, *(("input_layer.weight", "input_layer.bias") if "encoder.w" in weights else ()))
    missing = [name for name in needed if name not in weights]
    if settings.get("use_positional_encoding") and "encoder.w" not in weights:
        missing.append("encoder.w")
    if missing:
        raise input_error(f"{file} lacks {missing[0]} of NeTI's network; download the file again")
    made = weights["output_layer.0.weight"].shape[0]
    if made not in (width, 2 * width):
        raise input_error(
            f"{file} makes rows of {made}, the text encoder of this clip reads {width} or, with the second half for "
            f"values, {2 * width}: connect the clip of an SD1.x checkpoint, or choose another file"
        )
    norm = settings.get("target_norm")
    truncation = truncation if settings.get("use_nested_dropout", True) else HIDDEN
    maker = WordMaker(weights, width, truncation, float(norm) if isinstance(norm, int | float) and norm else None)
    try:
        maker.at(FIRST_TIMESTEP)
    except RuntimeError as error:
        raise input_error(f"{file} is damaged: the parts of its network do not fit together") from error
    return maker


def _plain(path, word, maker):
    """What stands for the word where nothing is made: the vector in the file beside it, else the first that is made."""
    beside = path.with_name(f"{path.stem.replace('mapper', 'learned_embeds')}.bin")
    if beside != path and beside.is_file():
        contents = read_contents(beside)
        vectors = [one for one in contents.values() if isinstance(one, torch.Tensor) and one.numel() == maker.width]
        own = contents.get(word)
        found = own if isinstance(own, torch.Tensor) and own.numel() == maker.width else next(iter(vectors), None)
        if found is not None:
            return found.float().reshape(-1)
    return maker.at(FIRST_TIMESTEP)[0][0]
