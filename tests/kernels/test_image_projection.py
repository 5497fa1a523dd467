"""Image tokens: the kernels against slow loops and the recorded tokens."""

import math

import pytest
import torch
from support.compare import close
from support.golden_data import GOLDEN, case

from pack.kernels.image_projection import HEAD, image_tokens, projection_shapes, projection_sizes

CASES = sorted(path.stem for path in (GOLDEN / "mip_adapter").glob("*.safetensors"))
RECORDED = [name for name in CASES if not name.startswith(("weights_", "encode", "tokens", "kernel_"))]


def weights_for(shapes, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (torch.randn(shape, generator=generator, dtype=torch.float64) * shape[-1] ** -0.5).to(dtype)
        for name, shape in shapes.items()
    }


def made(shapes, width, dtype=torch.float64):
    sizes = projection_sizes(shapes, width)
    assert projection_shapes(sizes) == shapes
    return weights_for(shapes, dtype=dtype), sizes


BASE = {"proj.weight": (3 * 5, 7), "proj.bias": (15,), "norm.weight": (5,), "norm.bias": (5,)}
FULL = {
    "proj.0.weight": (9, 7),
    "proj.0.bias": (9,),
    "proj.2.weight": (5, 9),
    "proj.2.bias": (5,),
    "proj.3.weight": (5,),
    "proj.3.bias": (5,),
}


def plus_shapes(depth=2, heads=2, dim=6, hidden=11, tokens=3, embed=7, width=5):
    shapes = {
        "latents": (1, tokens, dim),
        "proj_in.weight": (dim, embed),
        "proj_in.bias": (dim,),
        "proj_out.weight": (width, dim),
        "proj_out.bias": (width,),
        "norm_out.weight": (width,),
        "norm_out.bias": (width,),
    }
    for layer in range(depth):
        for norm in ("0.norm1", "0.norm2", "1.0"):
            shapes |= {f"layers.{layer}.{norm}.{part}": (dim,) for part in ("weight", "bias")}
        shapes[f"layers.{layer}.0.to_q.weight"] = (heads * HEAD, dim)
        shapes[f"layers.{layer}.0.to_kv.weight"] = (2 * heads * HEAD, dim)
        shapes[f"layers.{layer}.0.to_out.weight"] = (dim, heads * HEAD)
        shapes[f"layers.{layer}.1.1.weight"] = (hidden, dim)
        shapes[f"layers.{layer}.1.3.weight"] = (dim, hidden)
    return shapes


# the formulas in loops over numbers


def linear(x, weights, name):
    matrix, bias = weights[f"{name}.weight"].tolist(), weights.get(f"{name}.bias")
    bias = [0.0] * len(matrix) if bias is None else bias.tolist()
    return [sum(w * value for w, value in zip(row, x, strict=True)) + b for row, b in zip(matrix, bias, strict=True)]


def norm(x, weights, name):
    mean = sum(x) / len(x)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in x) / len(x) + 1e-5)
    scale, shift = weights[f"{name}.weight"].tolist(), weights[f"{name}.bias"].tolist()
    return [(value - mean) / deviation * s + b for value, s, b in zip(x, scale, shift, strict=True)]


def gelu(x):
    return [value * 0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x]


def plus(left, right):
    return [a + b for a, b in zip(left, right, strict=True)]


def slow_resampler(hidden, weights, depth, heads):
    x = [linear(token, weights, "proj_in") for token in hidden]
    latents = weights["latents"][0].tolist()
    for layer in range(depth):
        name = f"layers.{layer}"
        asked = [norm(token, weights, f"{name}.0.norm2") for token in latents]
        seen = [norm(token, weights, f"{name}.0.norm1") for token in x] + asked
        queries = [linear(token, weights, f"{name}.0.to_q") for token in asked]
        both = [linear(token, weights, f"{name}.0.to_kv") for token in seen]
        gathered = []
        for query in queries:
            row = []
            for head in range(heads):
                own = range(head * HEAD, (head + 1) * HEAD)
                scores = [sum(query[i] * token[i] for i in own) / math.sqrt(HEAD) for token in both]
                parts = [math.exp(score - max(scores)) for score in scores]
                for i in own:
                    values = [token[heads * HEAD + i] for token in both]
                    row.append(sum(p * v for p, v in zip(parts, values, strict=True)) / sum(parts))
            gathered.append(linear(row, weights, f"{name}.0.to_out"))
        latents = [plus(token, found) for token, found in zip(latents, gathered, strict=True)]
        for number, token in enumerate(latents):
            inner = gelu(linear(norm(token, weights, f"{name}.1.0"), weights, f"{name}.1.1"))
            latents[number] = plus(token, linear(inner, weights, f"{name}.1.3"))
    return [norm(linear(token, weights, "proj_out"), weights, "norm_out") for token in latents]


def test_base_is_one_matrix_cut_into_tokens():
    weights, sizes = made(BASE, 5)
    embeds = torch.randn(4, 7)
    expected = []
    for row in embeds.double().tolist():
        numbers = linear(row, weights, "proj")
        expected.append([norm(numbers[5 * token : 5 * token + 5], weights, "norm") for token in range(3)])
    close(image_tokens(embeds, weights, sizes), expected, 5e-6)


def test_full_face_keeps_every_token():
    weights, sizes = made(FULL, 5)
    hidden = torch.randn(2, 6, 7)
    expected = [
        [norm(linear(gelu(linear(t, weights, "proj.0")), weights, "proj.2"), weights, "proj.3") for t in picture]
        for picture in hidden.double().tolist()
    ]
    close(image_tokens(hidden, weights, sizes), expected, 5e-6)


@pytest.mark.parametrize(("depth", "heads"), [(1, 1), (2, 3)])
def test_plus_gathers_in_its_queries(depth, heads):
    weights, sizes = made(plus_shapes(depth, heads), 5)
    hidden = torch.randn(2, 4, 7)
    expected = [slow_resampler(picture, weights, depth, heads) for picture in hidden.double().tolist()]
    close(image_tokens(hidden, weights, sizes), expected, 5e-6)


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_tokens(name):
    tensors, parameters = case(f"mip_adapter/{name}")
    file, _ = case(f"mip_adapter/{parameters['weights'].removesuffix('.safetensors')}")
    weights = {key.removeprefix("image_proj."): t for key, t in file.items() if key.startswith("image_proj.")}
    shapes = {key: tuple(t.shape) for key, t in weights.items()}
    sizes = projection_sizes(shapes, file["ip_adapter.1.to_k_ip.weight"].shape[1])
    assert projection_shapes(sizes) == shapes and sizes.variant == parameters["variant"]
    seen = tensors["clip_image_embeds" if sizes.variant == "base" else "clip_penultimate"]
    views = image_tokens(seen, weights, sizes).split(parameters["images_per_object"])
    close(torch.stack([view.mean(0) for view in views]), tensors["image_tokens_cond"], 5e-6)
    nothing = torch.zeros_like(seen[:1]) if sizes.variant == "base" else tensors["clip_penultimate_uncond"][:1]
    close(image_tokens(nothing, weights, sizes).expand(len(views), -1, -1), tensors["image_tokens_uncond"], 5e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shapes", [BASE, FULL, plus_shapes()], ids=["base", "full-face", "plus"])
def test_weights_of_half_precision_are_computed_in_full(shapes, dtype):
    weights, sizes = made(shapes, 5, dtype)
    seen = torch.randn(3, 7) if sizes.variant == "base" else torch.randn(3, 4, 7)
    full = {name: t.float() for name, t in weights.items()}
    assert torch.equal(image_tokens(seen, weights, sizes), image_tokens(seen, full, sizes))
    # what the encoder gave in half precision is not rounded again
    assert torch.equal(image_tokens(seen.to(dtype), weights, sizes), image_tokens(seen.to(dtype).float(), full, sizes))


@pytest.mark.parametrize("shapes", [BASE, FULL, plus_shapes()], ids=["base", "full-face", "plus"])
def test_each_picture_by_itself(shapes):
    weights, sizes = made(shapes, 5)
    seen = torch.randn(3, 7) if sizes.variant == "base" else torch.randn(3, 4, 7)
    together = image_tokens(seen, weights, sizes)
    torch.testing.assert_close(together, torch.cat([image_tokens(one[None], weights, sizes) for one in seen]))


def test_extreme_scores_stay_numbers():
    weights, sizes = made(plus_shapes(), 5)
    weights["layers.0.0.to_q.weight"] *= 1e4
    assert torch.isfinite(image_tokens(torch.randn(2, 4, 7), weights, sizes)).all()


def test_sizes_say_what_is_missing():
    assert projection_sizes({"norm.weight": (5,)}, 5) is None
    with pytest.raises(ValueError, match="proj.weight has 16 rows, which is not a multiple of the token width 5"):
        projection_sizes(BASE | {"proj.weight": (16, 7)}, 5)
    with pytest.raises(ValueError, match="to_q.weight has 100 rows, which is not a multiple of the head width 64"):
        projection_sizes(plus_shapes() | {"layers.0.0.to_q.weight": (100, 6)}, 5)
    with pytest.raises(ValueError, match=r"proj.0.weight has the shape \[9\], which is not a matrix"):
        projection_sizes(FULL | {"proj.0.weight": (9,)}, 5)
    with pytest.raises(KeyError, match="proj_in.weight"):
        projection_sizes({"latents": (1, 3, 6)}, 5)
