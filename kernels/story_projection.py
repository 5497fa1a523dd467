"""StoryMaker's image tokens (arXiv 2409.12576): a face's and a body's, told apart by the person's place in the picture.

Weights are a dict of tensors under the published names, of any float type; everything is computed in float32.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .face_projection import FaceSizes, face_shapes, face_sizes, face_tokens, seen_tokens
from .image_projection import ProjectionSizes, resampled, resampler_shapes, resampler_sizes
from .named_weights import below, layer_norm, linear_shapes, norm_shapes

GROUND, PLACES, BODY = "bg_embed", "pos_embed", "resample."


@dataclass(frozen=True)
class StorySizes:
    """Tokens of one person and of the ground, how many people there are places for, and the two projections."""

    tokens: int
    width: int
    ground: int
    people: int
    face: FaceSizes
    body: ProjectionSizes
    variant: str = "storymaker"

    @property
    def embed(self):
        """Width of the vision encoder's hidden states."""
        return self.body.embed


def story_sizes(shapes, width):
    """The StorySizes that {name: shape} speak of, for tokens `width` wide; None: this is no StoryMaker file.

    KeyError names a tensor that is missing for it, ValueError says what does not fit.
    """
    if GROUND not in shapes:
        return None
    face = face_sizes(shapes, width)
    if face is None or face.perceiver is None:
        raise KeyError("proj.0.weight" if face is None else "perceiver_resampler.proj_in.weight")
    try:
        body = resampler_sizes(below(shapes, BODY), width)
    except KeyError as error:
        raise KeyError(f"{BODY}{error.args[0]}") from error
    except ValueError as error:
        raise ValueError(f"{BODY}{error}") from error
    if len(shapes[PLACES]) != 3 or len(shapes[GROUND]) != 3:
        raise ValueError(f"{PLACES} or {GROUND} has not three axes")
    people, tokens, _ = shapes[PLACES]
    if face.tokens + body.tokens != tokens or body.embed != face.embed:
        raise ValueError(f"{PLACES} has {tokens} tokens, a face has {face.tokens} and a body {body.tokens}")
    return StorySizes(tokens, width, shapes[GROUND][1], people, face, body)


def story_shapes(sizes):
    """{name: shape} of every tensor that the projection reads."""
    width, body = sizes.width, {"latents": (1, sizes.body.tokens, sizes.body.dim)} | resampler_shapes(sizes.body)
    shapes = face_shapes(sizes.face) | {f"{BODY}{name}": shape for name, shape in body.items()}
    shapes |= {GROUND: (1, sizes.ground, width), PLACES: (sizes.people, sizes.tokens, width)}
    return shapes | linear_shapes("proj_out", width, width) | norm_shapes("norm_out", width)


def person_tokens(embeddings, face, body, weights, width):
    """Tokens (m, T, D) float32 of m pictures of people without their places: x + what the face shows, and the body's.

    embeddings (m, 512) of length 1; face and body (m, t, E): hidden states of their crops; D is `width`.
    """
    named = face_tokens(embeddings, weights, width)
    named = named + seen_tokens(named, face, weights)
    whole = resampled(body.float(), {name: t.float() for name, t in below(weights, BODY).items()})
    return torch.cat([named, whole], 1)


def placed_tokens(tokens, place, weights):
    """layernorm(W_out c + b_out) + c with c = tokens (m, T, D) + the embedding of a place."""
    placed = tokens + weights[PLACES][place].float()
    out = F.linear(placed, weights["proj_out.weight"].float(), weights["proj_out.bias"].float())
    return layer_norm(out, weights, "norm_out") + placed


def ground_tokens(weights):
    """The tokens (T, D) float32 of the ground."""
    return weights[GROUND][0].float()
