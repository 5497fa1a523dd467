"""Custom Diffusion and DisenDiff files of five layouts: weights of cross-attentions, and the words beside them."""

from dataclasses import dataclass

import torch

from ..files.model_files import LORAS, path_of
from ..files.safe_files import read_contents
from ..files.told_kinds import kind_of
from ..host.families import CONTEXT_WIDTHS
from ..host.messages import input_error
from ..text_contexts.concept_file import Vectors
from ..text_contexts.mistaken_words import not_the_kind
from ..text_contexts.taught_clip import own_word

_LDM = "model.diffusion_model."


@dataclass(frozen=True, eq=False)
class CustomDiffusionFile:
    """What one file holds, by the host's names of the weights."""

    name: str
    # {key: the trained weight, or (u, v) of a change u . v}
    weights: dict
    # {word: (Vectors, ...)}
    words: dict


def read_custom_diffusion(choice, names, shapes):
    """The CustomDiffusionFile of a listed file.

    names: {name of a weight or bias in diffusers: the host's key}; shapes: {key: its shape}. Raises ValueError for
    files of another kind or family.
    """
    path = path_of(choice, LORAS)
    contents = read_contents(path)
    file = path.name
    if kind_of(contents) != "Custom Diffusion":
        raise not_the_kind(contents, file, "Custom Diffusion")
    text = next((key for key in ("text_encoder", "text_encoder_2") if contents.get(key)), None)
    if text:
        raise input_error(
            f"{file} holds a whole {text}, which is not read here; ask its authors for a text encoder file, and load "
            "that with a CLIP loader"
        )
    weights = {}
    for name, value in _named(contents).items():
        key = _key(name, names)
        if key not in shapes:
            raise input_error(f"{file} changes {name}, which this model does not have: choose a file for its family")
        weights[key] = _checked(file, name, value, shapes[key])
    if not weights:
        raise input_error(f"{file} holds no weights of cross-attentions; load its words with Load Concept Words")
    return CustomDiffusionFile(file, weights, _words(contents, path))


def _named(contents):
    """{name as the file has it: value} of the weights alone."""
    inner = contents.get("unet") or contents.get("state_dict") or contents
    found = {}
    for name, value in inner.items():
        plain = name.replace(".processor.", ".").replace("_custom_diffusion.", ".") if isinstance(name, str) else ""
        # the library writes an empty dict for each self-attention
        if ".attn2." in plain and (isinstance(value, torch.Tensor) or (isinstance(value, dict) and value)):
            found[plain] = value
    return found


def _key(name, names):
    return name.removeprefix(_LDM) if name.startswith(_LDM) else names.get(name.removeprefix("unet."), name)


def _checked(file, name, value, shape):
    if isinstance(value, dict):
        pair = value.get("u"), value.get("v")
        if not all(isinstance(half, torch.Tensor) and half.ndim == 2 for half in pair):
            raise input_error(f"{file} is damaged: {name} is neither a weight nor a pair of u and v")
        u, v = pair
        if u.shape[1] != v.shape[0]:
            raise input_error(
                f"{file} is damaged: u and v of {name} are {tuple(u.shape)} and {tuple(v.shape)}, which cannot be "
                "multiplied; download the file again"
            )
        came = (u.shape[0], v.shape[1])
    else:
        pair, came = value, tuple(value.shape)
    if came != tuple(shape):
        families = [CONTEXT_WIDTHS.get(one[-1]) for one in (came, shape)]
        said = f" (for {families[0]}, the model is {families[1]})" if all(families) else ""
        raise input_error(
            f"{file} has {name} as {' x '.join(map(str, came))}, the model's is {' x '.join(map(str, shape))}{said}: "
            "choose a file for this checkpoint's family"
        )
    return pair


def _words(contents, path):
    """{word: (Vectors, ...)} in the file's order."""
    named = contents.get("modifier_token")
    if isinstance(named, dict):
        words = {}
        for name, rows in named.items():
            several = rows if isinstance(rows, list) else [rows]
            if not all(isinstance(one, torch.Tensor) and one.numel() for one in several):
                raise input_error(f"{path.name} is damaged: its word {name} is no vector; download the file again")
            name = own_word(str(name), path.stem, before=len(words))
            words[name] = tuple(Vectors(one.float().reshape(1, -1)) for one in several)
        return words
    inner = contents.get("state_dict")
    table = inner.get("embed") if isinstance(inner, dict) else None
    if not isinstance(table, torch.Tensor):
        return {}
    # one of the authors' converters joins several words into one flat vector
    width = table.shape[-1] if table.ndim > 1 else _width_of(inner)
    return {f"<new{number}>": (Vectors(row[None]),) for number, row in enumerate(table.float().reshape(-1, width), 1)}


def _width_of(weights):
    return next(value.shape[-1] for key, value in weights.items() if key.endswith("attn2.to_k.weight"))
