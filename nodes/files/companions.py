"""Weights of the pack for its pocket model, offered by the loaders beside the user's files, under names of their own.

An entry such as "pocket: npnet" can't be a user's: where it stands in a list, it means the pack's file.
"""

import functools
from pathlib import Path

COMPANIONS = Path(__file__).parents[1] / "pocket" / "companions"
POCKET = "pocket: "
# Of each kind of model files those that its loaders read; {kind: patterns of names}.
_OFFERED = {
    "embeddings": ("*_neti.pt",),
    "ipadapter": ("*.safetensors",),
    "loras": ("*_edlora.safetensors", "*_krona.safetensors", "*_custom_diffusion.bin"),
    "npnet": ("*.safetensors",),
    "resadapter": ("*/*.safetensors",),
}


@functools.cache
def companions(kind):
    """{entry: path} of what the pack has of this kind of model files; a set of two files has both, as `set/file`."""
    files = sorted(path for pattern in _OFFERED.get(kind, ()) for path in COMPANIONS.joinpath(kind).glob(pattern))
    return {POCKET + _label(path.relative_to(COMPANIONS / kind)): path for path in files}


def is_companion(name):
    """Whether an entry means a file of the pack."""
    return isinstance(name, str) and name.startswith(POCKET)


def _label(path):
    return "/".join(part.removesuffix("_pocket") for part in path.with_suffix("").parts)
