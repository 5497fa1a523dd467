"""KronA files of DiffuseKronA: two small factors for each attention projection, under the names of diffusers."""

import re

from ..files.model_files import LORAS, path_of
from ..files.safe_files import read_tensors
from ..files.told_kinds import KINDS, kind_of
from ..host.families import CONTEXT_WIDTHS
from ..host.messages import input_error

_KEY = re.compile(r"^(?:unet\.)?(.+?)(?:\.processor\.(to_q|to_k|to_v|to_out)_lora|\.lora_layer)\.(down|up)\.weight$")
_TEXT = re.compile(r"^(?:text_encoder(?:_2)?|te\d?)[._]")


def read_krona(choice, shapes):
    """({diffusers name of a layer: (down (a2, a1), up (b1, b2))} of a listed file, its name).

    shapes: {diffusers name of a layer: (outputs, inputs)} of the UNet. Raises ValueError for other files, and for
    factors that fit the layers no better than a LoRA's halves would.
    """
    path = path_of(choice, LORAS)
    tensors, _ = read_tensors(path)
    halves = _halves(tensors, path.name)
    if all(_is_lora(shapes.get(name), pair) for name, pair in halves.items()):
        raise input_error(f"{path.name} is an ordinary LoRA, not a KronA file; load it with Load LoRA")
    for name, (down, up) in halves.items():
        _check(path.name, name, shapes, down, up)
    return halves, path.name


def _halves(tensors, file):
    alpha = next((key for key in tensors if key.endswith("alpha")), None)
    text = next((key for key in tensors if _TEXT.match(key)), None)
    found = {}
    for key, tensor in tensors.items():
        match = _KEY.match(key)
        if match and key not in (alpha, text):
            name = f"{match[1]}.{match[2]}" if match[2] else match[1]
            found.setdefault(name.replace(".to_out", ".to_out.0") if match[2] else name, {})[match[3]] = tensor
    if not found:
        kind = kind_of(tensors)
        said = f" but {KINDS[kind][0]}; load it with {KINDS[kind][1]}" if kind else "; choose one"
        raise input_error(f"{file} is not a KronA file{said}")
    if alpha or text:
        said = "an alpha, which no KronA file has" if alpha else "a part for a text encoder, whose form is not known"
        raise input_error(f"{file} has {said} ({alpha or text}); ask for the file's UNet part alone, or train without")
    strange = next((key for key in tensors if not _KEY.match(key)), None)
    if strange:
        raise input_error(f"{file} contains {strange}, which is no part of a KronA file; choose another file")
    for name, pair in found.items():
        if set(pair) != {"down", "up"}:
            raise input_error(f"{file} lacks the other half of {name}; download the file again")
        if pair["down"].ndim != 2 or pair["up"].ndim != 2:
            raise input_error(f"{file} is damaged: {name} is no pair of matrices; download the file again")
    return {name: (pair["down"], pair["up"]) for name, pair in found.items()}


def _is_lora(shape, pair):
    down, up = pair
    return shape is not None and down.shape[0] == up.shape[1] and (up.shape[0], down.shape[1]) == shape


def _check(file, name, shapes, down, up):
    if name not in shapes:
        raise input_error(f"{file} changes {name}, which this model does not have: choose a file for its family")
    made = up.shape[0] * down.shape[1], down.shape[0] * up.shape[1]
    if made != shapes[name]:
        family = (
            f" ({CONTEXT_WIDTHS[made[1]]})"
            if name.endswith(("attn2.to_k", "attn2.to_v")) and made[1] in (CONTEXT_WIDTHS)
            else ""
        )
        raise input_error(
            f"{file} changes {name} as {made[0]} x {made[1]}{family}, the model's is {shapes[name][0]} x "
            f"{shapes[name][1]}: choose a file for this checkpoint's family"
        )
