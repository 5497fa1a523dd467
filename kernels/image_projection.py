"""From what a vision encoder sees in a picture to the image tokens that cross-attention reads (IP-Adapter family).

Weights are a dict of tensors under the published names, of any float type; everything is computed in float32.
Sources: IP-Adapter (arXiv 2308.06721, section 3.2), its Resampler after Flamingo (arXiv 2204.14198, section 3.1).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange

from .named_weights import layer_norm, linear_shapes, matrix_shape, norm_shapes

# Width of a head in the Resampler; how many heads there are follows from the shapes.
HEAD = 64
# "full-face" keeps one token per patch and one for the class: ViT at 224 pixels and 14 x 14 patches.
FULL_TOKENS = 257


@dataclass(frozen=True)
class ProjectionSizes:
    """T (tokens of one picture), D (their width), E (width of what the encoder gives), and the Resampler's inside."""

    variant: str  # "base", "plus" or "full-face"
    tokens: int
    width: int
    embed: int
    dim: int = 0
    inner: int = 0
    hidden: int = 0
    depth: int = 0


def projection_sizes(shapes, width):
    """The ProjectionSizes that {name: shape} speak of, for tokens `width` wide.

    KeyError names a tensor that is missing for it, ValueError says what does not fit; None: no variant has such names.
    """
    if "proj.weight" in shapes:
        rows, embed = matrix_shape(shapes, "proj.weight")
        if rows % width:
            raise ValueError(f"proj.weight has {rows} rows, which is not a multiple of the token width {width}")
        return ProjectionSizes("base", rows // width, width, embed)
    if "latents" in shapes:
        return resampler_sizes(shapes, width)
    if "proj.3.weight" in shapes:
        hidden, embed = matrix_shape(shapes, "proj.0.weight")
        return ProjectionSizes("full-face", FULL_TOKENS, width, embed, hidden=hidden)
    return None


def resampler_sizes(shapes, width):
    """The ProjectionSizes of a Resampler's {name: shape}, with 0 tokens if it has no queries.

    KeyError and ValueError as above.
    """
    dim, embed = matrix_shape(shapes, "proj_in.weight")
    inner = matrix_shape(shapes, "layers.0.0.to_q.weight")[0]
    if inner % HEAD:
        raise ValueError(f"layers.0.0.to_q.weight has {inner} rows, which is not a multiple of the head width {HEAD}")
    hidden = matrix_shape(shapes, "layers.0.1.1.weight")[0]
    depth = len({name.split(".")[1] for name in shapes if name.startswith("layers.")})
    queries = shapes.get("latents", ())
    return ProjectionSizes("plus", queries[1] if len(queries) == 3 else 0, width, embed, dim, inner, hidden, depth)


def projection_shapes(sizes):
    """{name: shape} of every tensor that the projection reads."""
    if sizes.variant == "base":
        return linear_shapes("proj", sizes.tokens * sizes.width, sizes.embed) | norm_shapes("norm", sizes.width)
    if sizes.variant == "full-face":
        shapes = linear_shapes("proj.0", sizes.hidden, sizes.embed)
        return shapes | linear_shapes("proj.2", sizes.width, sizes.hidden) | norm_shapes("proj.3", sizes.width)
    return {"latents": (1, sizes.tokens, sizes.dim)} | resampler_shapes(sizes)


def resampler_shapes(sizes):
    """The same of a Resampler whose queries are given to it."""
    dim = sizes.dim
    shapes = linear_shapes("proj_in", dim, sizes.embed)
    shapes |= linear_shapes("proj_out", sizes.width, dim) | norm_shapes("norm_out", sizes.width)
    for layer in range(sizes.depth):
        name = f"layers.{layer}"
        for norm in ("0.norm1", "0.norm2", "1.0"):
            shapes |= norm_shapes(f"{name}.{norm}", dim)
        shapes[f"{name}.0.to_q.weight"] = (sizes.inner, dim)
        shapes[f"{name}.0.to_kv.weight"] = (2 * sizes.inner, dim)
        shapes[f"{name}.0.to_out.weight"] = (dim, sizes.inner)
        shapes[f"{name}.1.1.weight"] = (sizes.hidden, dim)
        shapes[f"{name}.1.3.weight"] = (dim, sizes.hidden)
    return shapes


def image_tokens(embeds, weights, sizes):
    """Image tokens (m, T, D) float32 of m pictures, on the device of `embeds`.

    embeds: image_embeds (m, E) for "base"; hidden states (m, t, E) before the encoder's last layer for the others
    ("full-face" has T = t). weights: {published name: tensor}; sizes: their `projection_sizes`.
    """
    weights = {name: t.to(embeds.device, torch.float32) for name, t in weights.items()}
    embeds = embeds.float()
    if sizes.variant == "base":
        return projected(embeds, weights, sizes.width)
    return resampled(embeds, weights) if sizes.variant == "plus" else transformed(embeds, weights)


def projected(embeds, weights, width):
    """layernorm(W e + b) with W e + b cut into T tokens: (m, T, D) of embeds (m, E); D is `width`."""
    tokens = rearrange(_linear(embeds, weights, "proj"), "m (t d) -> m t d", d=width)
    return layer_norm(tokens, weights, "norm")


def transformed(hidden, weights):
    """layernorm(W2 gelu(W0 x + b0) + b2) of each token by itself: (m, t, D) of hidden states (m, t, E)."""
    inner = F.gelu(_linear(hidden, weights, "proj.0"))
    return layer_norm(_linear(inner, weights, "proj.2"), weights, "proj.3")


def resampled(hidden, weights):
    """T learned queries gather from the hidden states: (m, T, D) of hidden states (m, t, E)."""
    return perceived(weights["latents"].expand(len(hidden), -1, -1), hidden, weights)


def perceived(latents, hidden, weights):
    """Queries l (m, T, dim) gather from hidden states (m, t, E): (m, T, D).

    Per layer: l += attention(l; x, l), then l += W3 gelu(W1 layernorm(l)); at the end layernorm(W_out l + b_out).
    """
    x = _linear(hidden, weights, "proj_in")
    layer = 0
    while f"layers.{layer}.0.to_q.weight" in weights:
        latents = latents + _gathered(x, latents, weights, f"layers.{layer}.0")
        inner = F.gelu(_linear(layer_norm(latents, weights, f"layers.{layer}.1.0"), weights, f"layers.{layer}.1.1"))
        latents = latents + _linear(inner, weights, f"layers.{layer}.1.3")
        layer += 1
    return layer_norm(_linear(latents, weights, "proj_out"), weights, "norm_out")


def _gathered(x, latents, weights, name):
    """W_out softmax(q kT / sqrt(d)) v, q of norm2(l), k and v of both norm1(x) and norm2(l); l (m, T, dim)."""
    latents = layer_norm(latents, weights, f"{name}.norm2")
    both = torch.cat([layer_norm(x, weights, f"{name}.norm1"), latents], dim=1)
    q = rearrange(_linear(latents, weights, f"{name}.to_q"), "m t (h d) -> m h t d", d=HEAD)
    k, v = rearrange(_linear(both, weights, f"{name}.to_kv"), "m t (two h d) -> two m h t d", two=2, d=HEAD)
    out = rearrange(F.scaled_dot_product_attention(q, k, v), "m h t d -> m t (h d)")
    return _linear(out, weights, f"{name}.to_out")


def _linear(x, weights, name):
    return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))
