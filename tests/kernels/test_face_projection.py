"""From embeddings to tokens, against the formula in double precision and recorded tokens."""

import pytest
import torch
from support.golden_data import case

from pack.kernels.face_projection import face_shapes, face_sizes, face_tokens, seen_tokens


def weights_of(name):
    weights, _ = case(f"faceid/weights_{name}")
    return {k.removeprefix("image_proj."): t for k, t in weights.items() if k.startswith("image_proj.")}


@pytest.mark.parametrize(
    ("name", "variant", "tokens", "width"),
    [("sd15_faceid", "faceid", 4, 32), ("sd15_portrait", "faceid", 16, 32), ("sdxl_plusv2", "faceid-plus", 4, 48)],
)
def test_sizes_and_shapes(name, variant, tokens, width):
    shapes = {key: tuple(t.shape) for key, t in weights_of(name).items()}
    sizes = face_sizes(shapes, width)
    assert (sizes.variant, sizes.tokens, sizes.width) == (variant, tokens, width)
    assert face_shapes(sizes) == shapes


def test_the_formula():
    """layernorm(W2 gelu(W0 e + b0) + b2), with the error function, one token after the other."""
    weights = {key: t.double() for key, t in weights_of("sd15_faceid").items()}
    e = torch.randn(2, 512, generator=torch.Generator().manual_seed(0)).double()
    x = e @ weights["proj.0.weight"].mT + weights["proj.0.bias"]
    x = x * 0.5 * (1 + torch.erf(x / 2**0.5))
    x = (x @ weights["proj.2.weight"].mT + weights["proj.2.bias"]).view(2, 4, 32)
    centred = x - x.mean(-1, keepdim=True)
    x = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    x = x * weights["norm.weight"] + weights["norm.bias"]
    torch.testing.assert_close(face_tokens(e, weights, 32).double(), x, rtol=1e-4, atol=1e-5)


def test_recorded_tokens_of_a_plus_file():
    golden, params = case("faceid/sd15_plusv2_structure")
    weights = weights_of("sd15_plus")
    tokens = face_tokens(golden["face_embeds"], weights, 32)
    seen = seen_tokens(tokens, golden["clip_penultimate"], weights)
    assert (tokens + params["structure"] * seen - golden["image_tokens_cond"]).abs().max() < 1e-5
