"""FaceID files: from embeddings and crops of a face to its image tokens."""

import re

import torch
import torch.nn.functional as F

from ...kernels.face_projection import face_tokens, seen_tokens
from ..host.messages import warn_user
from .adapter_use import PORTRAIT
from .image_adapter import RESAMPLED_FACE

# Plus files are of two versions with the same tensors: the second adds what the picture gives to the embedding's part.
VERSIONS = ("auto", "1", "2")
_SECOND, _FIRST = re.compile(r"plus[-_ ]?v2"), re.compile(r"faceid[-_ ]?plus(?![-_ ]?v2)")
# There is no first version for the text of SDXL.
SDXL_WIDTH = 2048


def version_of(adapter, choice):
    """1 or 2, as chosen, else as the file's name says, else 2 with a word about it."""
    if choice != "auto":
        return int(choice)
    name = adapter.name.lower()
    if _SECOND.search(name) or adapter.width == SDXL_WIDTH:
        return 2
    if _FIRST.search(name):
        return 1
    warn_user(
        f"{adapter.name}: FaceID plus files of versions 1 and 2 look alike, and the name of this one does not say "
        "which it is; it is read as version 2; choose version 1 if the likeness is poor"
    )
    return 2


def faceid_tokens(adapter, embeddings, hidden, structure, version):
    """Image tokens (T, D) float32 of one person by v pictures.

    embeddings (v, 512) as the recognition network gives them; hidden (v, t, E): the encoder's hidden states of the
    crops, for plus files. A portrait file reads several pictures at once: (v T, D).
    """
    if adapter.variant == RESAMPLED_FACE:
        return adapter.project(embeddings.mean(0)[None, None])[0]
    tokens = _tokens(adapter, F.normalize(embeddings.float(), dim=-1), hidden, structure, version)
    return tokens.flatten(0, 1) if adapter.tokens == PORTRAIT else tokens.mean(0)


def faceid_empty(adapter, zero_hidden, structure, version):
    """Image tokens (T, D) float32 of no face; zero_hidden (1, t, E): hidden states of pixels that are all zero."""
    nobody = torch.zeros(1, 512)
    if adapter.variant == RESAMPLED_FACE:
        return adapter.project(nobody[None])[0]
    return _tokens(adapter, nobody, zero_hidden, structure, version)[0]


def _tokens(adapter, embeddings, hidden, structure, version):
    weights = adapter.projection.weights
    tokens = face_tokens(embeddings, weights, adapter.width)
    if adapter.variant != "faceid-plus":
        return tokens
    seen = seen_tokens(tokens, hidden.cpu(), weights)
    return tokens + structure * seen if version == 2 else seen
