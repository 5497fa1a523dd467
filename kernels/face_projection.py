"""From the embedding of a face to the image tokens that cross-attention reads (FaceID, StoryMaker, arXiv 2409.12576).

Weights are a dict of tensors under the published names, of any float type; everything is computed in float32.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from einops import rearrange

from .image_projection import ProjectionSizes, perceived, resampler_shapes, resampler_sizes
from .named_weights import below, layer_norm, linear_shapes, matrix_shape, norm_shapes

# What face recognition networks give.
EMBEDDING = 512
PERCEIVER = "perceiver_resampler."


@dataclass(frozen=True)
class FaceSizes:
    """T (tokens of one face), D (their width), the MLP's inside, and what gathers from the face's picture, if any."""

    variant: str  # "faceid" or "faceid-plus"
    tokens: int
    width: int
    hidden: int
    perceiver: ProjectionSizes | None = None

    @property
    def embed(self):
        """Width of the vision encoder's hidden states, 0 where no picture is read."""
        return self.perceiver.embed if self.perceiver else 0


def face_sizes(shapes, width):
    """The FaceSizes that {name: shape} speak of, for tokens `width` wide.

    KeyError names a tensor that is missing for it, ValueError says what does not fit; None: these are no faces.
    """
    if "proj.0.weight" not in shapes or "proj.2.weight" not in shapes or "norm.weight" not in shapes:
        return None
    (rows, hidden), (_, embed) = (matrix_shape(shapes, f"proj.{number}.weight") for number in (2, 0))
    if rows % width:
        raise ValueError(f"proj.2.weight has {rows} rows, which is not a multiple of the token width {width}")
    if embed != EMBEDDING:
        raise ValueError(f"proj.0.weight reads {embed} numbers, the embedding of a face has {EMBEDDING}")
    found = _perceiver_sizes(below(shapes, PERCEIVER), width)
    return FaceSizes("faceid-plus" if found else "faceid", rows // width, width, hidden, found)


def face_shapes(sizes):
    """{name: shape} of every tensor that the projection reads."""
    rows = sizes.tokens * sizes.width
    shapes = linear_shapes("proj.0", sizes.hidden, EMBEDDING) | linear_shapes("proj.2", rows, sizes.hidden)
    shapes |= norm_shapes("norm", sizes.width)
    if sizes.perceiver:
        shapes |= {f"{PERCEIVER}{name}": shape for name, shape in resampler_shapes(sizes.perceiver).items()}
    return shapes


def face_tokens(embeddings, weights, width):
    """layernorm(W2 gelu(W0 e + b0) + b2) cut into T tokens: (m, T, D) float32 of embeddings (m, 512); D is `width`."""
    inner = F.gelu(F.linear(embeddings.float(), weights["proj.0.weight"].float(), weights["proj.0.bias"].float()))
    tokens = F.linear(inner, weights["proj.2.weight"].float(), weights["proj.2.bias"].float())
    return layer_norm(rearrange(tokens, "m (t d) -> m t d", d=width), weights, "norm")


def seen_tokens(tokens, hidden, weights):
    """What a face's tokens (m, T, D) gather from the hidden states (m, t, E) of its picture: (m, T, D) float32."""
    return perceived(tokens, hidden.float(), _as_float(below(weights, PERCEIVER)))


def _perceiver_sizes(shapes, width):
    if not shapes:
        return None
    try:
        sizes = resampler_sizes(shapes, width)
    except KeyError as error:
        raise KeyError(f"{PERCEIVER}{error.args[0]}") from error
    except ValueError as error:
        raise ValueError(f"{PERCEIVER}{error}") from error
    if sizes.dim != width:
        raise ValueError(f"{PERCEIVER}proj_in.weight has {sizes.dim} rows instead of {width}")
    return sizes


def _as_float(weights):
    return {name: t.float() for name, t in weights.items()}
