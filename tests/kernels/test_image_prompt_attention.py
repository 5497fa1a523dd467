"""Image-prompt attention against slow loops and against values recorded from MIP-Adapter's published code."""

import math

import pytest
import torch
import torch.nn.functional as F
from support.golden_data import case

from pack.kernels.image_prompt_attention import image_probabilities, image_values, picture_shares, text_gate
from pack.kernels.object_shares import equal_shares, merge_weights, object_maps, shared_weight
from pack.kernels.reference_attention import torch_attention

HEADS = 2


def normal(*shape, seed=0, scale=1.0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape))) * scale


def looped_maps(q, phrase_k, counts, heads):
    """m_i(p), one number at a time, in double."""
    b, n, c = q.shape
    d = c // heads
    maps = torch.zeros(b, len(counts), n, dtype=torch.float64)
    for row in range(b):
        first = 0
        for i, count in enumerate(counts):
            for token in range(first, first + count):
                for h in range(heads):
                    part = slice(h * d, (h + 1) * d)
                    key = phrase_k[min(row, len(phrase_k) - 1), token, part].double()
                    logits = [float(q[row, p, part].double() @ key) / math.sqrt(d) for p in range(n)]
                    top = max(logits)
                    total = sum(math.exp(x - top) for x in logits)
                    for p in range(n):
                        maps[row, i, p] += math.exp(logits[p] - top) / total / (heads * count)
            first += count
    return maps


def looped_image(q, k, v, factors, heads, joint):
    """Σ_i f_i·softmax(q·k_i)·v_i, one position at a time."""
    b, n, c = q.shape
    r, t = k.shape[:2]
    d = c // heads
    out = torch.zeros(b, n, c)
    for row in range(b):
        for p in range(n):
            for h in range(heads):
                part = slice(h * d, (h + 1) * d)
                scores = torch.tensor(
                    [[float(q[row, p, part] @ k[i, j, part]) / d**0.5 for j in range(t)] for i in range(r)]
                )
                weights = F.softmax(scores.flatten(), 0).view(r, t) if joint else F.softmax(scores, 1)
                for i in range(r):
                    for j in range(t):
                        out[row, p, part] += factors[row, i, p] * weights[i, j] * v[i, j, part]
    return out


@pytest.mark.parametrize("counts", [[1], [2, 1], [1, 3, 2]])
@pytest.mark.parametrize("own_phrases", [False, True])
def test_maps_are_the_formula(counts, own_phrases):
    q = normal(2, 9, 8)
    phrase_k = normal(2 if own_phrases else 1, sum(counts), 8)
    maps = object_maps(q, phrase_k, counts, heads=HEADS).exp()
    torch.testing.assert_close(maps, looped_maps(q, phrase_k, counts, HEADS).float(), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, len(counts)))


@pytest.mark.parametrize("joint", [False, True])
def test_image_part_is_the_formula(joint):
    q, k, v = normal(2, 9, 8), normal(3, 4, 8), normal(3, 4, 8, seed=1)
    factors = torch.rand(2, 3, 9, generator=torch.Generator().manual_seed(0))
    probabilities = image_probabilities(q, k, heads=HEADS, joint=joint)
    out = image_values(probabilities, v, factors)
    torch.testing.assert_close(out, looped_image(q, k, v, factors, HEADS, joint), rtol=1e-5, atol=1e-6)


def test_joint_softmax_is_attention_to_concatenated_tokens():
    q, k, v = normal(2, 9, 8), normal(3, 4, 8), normal(3, 4, 8, seed=1)
    out = image_values(image_probabilities(q, k, heads=HEADS, joint=True), v, torch.ones(1, 3, 1))
    together = [t.reshape(1, 12, 8).expand(2, -1, -1) for t in (k, v)]
    torch.testing.assert_close(out, torch_attention(q, *together, HEADS))


def test_a_region_takes_a_picture_out_of_the_joint_softmax():
    q, k = normal(2, 9, 8), normal(2, 4, 8)
    regions = torch.ones(2, 9)
    regions[1, :5] = 0
    probabilities = image_probabilities(q, k, heads=HEADS, joint=True, log_regions=regions.log())
    assert probabilities[:, :, :5, 1].count_nonzero() == 0
    alone = image_probabilities(q, k[:1], heads=HEADS, joint=True)
    torch.testing.assert_close(probabilities[:, :, :5, :1], alone[:, :, :5])


def test_each_row_may_have_its_own_pictures():
    q, k, v = normal(2, 9, 8), normal(2, 3, 4, 8), normal(2, 3, 4, 8, seed=1)
    factors = torch.rand(2, 3, 9, generator=torch.Generator().manual_seed(0))
    out = image_values(image_probabilities(q, k, heads=HEADS), v, factors)
    for row in range(2):
        own = slice(row, row + 1)
        alone = image_values(image_probabilities(q[own], k[row], heads=HEADS), v[row], factors[own])
        torch.testing.assert_close(out[own], alone)


def test_weights_are_a_convex_mix():
    maps = object_maps(normal(2, 9, 8), normal(1, 5, 8), [1, 2, 2], heads=HEADS)
    weights = merge_weights(maps)
    torch.testing.assert_close(weights.sum(1), torch.ones(2, 9))
    torch.testing.assert_close(weights, maps.exp() / maps.exp().sum(1, keepdim=True))
    torch.testing.assert_close(merge_weights(maps, power=0.0), torch.full((2, 3, 9), 1 / 3))
    hard = merge_weights(maps, power=200.0)
    assert (hard.amax(1) > 0.99).float().mean() > 0.9


def test_regions_steer_the_mix_and_do_not_weaken_neighbours():
    maps = object_maps(normal(2, 9, 8), normal(1, 3, 8), [1, 2], heads=HEADS)
    regions = torch.rand(2, 9, generator=torch.Generator().manual_seed(0))
    regions[0, :3] = 0
    regions[1, 2:5] = 0
    weights = merge_weights(maps, power=2.0, regions=regions)
    shares = maps.exp() ** 2 * regions
    expected = shares / shares.sum(1, keepdim=True) * regions.amax(0)
    expected[:, :, 2] = 0
    torch.testing.assert_close(weights, expected)
    torch.testing.assert_close(weights[:, 1, :2], regions[1, :2].expand(2, -1))
    torch.testing.assert_close(merge_weights(maps, regions=torch.ones(2, 9)), merge_weights(maps))


def test_weight_of_shared_tokens():
    strengths = torch.tensor([1.2, 0.5])
    assert shared_weight(strengths) == pytest.approx(0.85)
    regions = torch.tensor([[1.0, 0.5, 0.0, 0.0], [1.0, 0.0, 0.25, 0.0]])
    expected = torch.tensor([0.85, 0.5 * 1.2, 0.25 * 0.5, 0.0])
    torch.testing.assert_close(shared_weight(strengths, regions), expected)


def test_gate_has_mean_one():
    text, vector = normal(2, 9, 8), normal(1, 8)
    gate = text_gate(text, vector)
    plain = 1 / (1 + (-(text * vector).sum(-1)).exp())
    torch.testing.assert_close(gate, plain / plain.mean(1, keepdim=True))
    torch.testing.assert_close(gate.mean(1), torch.ones(2))
    torch.testing.assert_close(text_gate(text, torch.zeros(1, 8)), torch.ones(2, 9))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite_where_maps_are_peaky(dtype):
    q, phrase_k = normal(1, 256, 64, scale=12.0).to(dtype), normal(1, 4, 64, scale=12.0).to(dtype)
    weights = merge_weights(object_maps(q, phrase_k, [1, 3], heads=HEADS))
    assert weights.dtype == torch.float32
    assert torch.isfinite(weights).all()
    exact = merge_weights(object_maps(q.double().float(), phrase_k.double().float(), [1, 3], heads=HEADS))
    torch.testing.assert_close(weights, exact, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_no_more_than_plain_attention(dtype):
    q, k, v = normal(2, 256, 64).to(dtype), normal(3, 16, 64).to(dtype), normal(3, 16, 64, seed=1).to(dtype)
    phrase_k = normal(1, 4, 64).to(dtype)
    outputs, plain = [], []
    for d in (dtype, torch.float32):
        maps = object_maps(q.to(d), phrase_k.to(d), [1, 2, 1], heads=HEADS)
        probabilities = image_probabilities(q.to(d), k.to(d), heads=HEADS)
        outputs.append(image_values(probabilities, v.to(d), merge_weights(maps)).float())
        together = [t.to(d).reshape(1, 48, 64).expand(2, -1, -1) for t in (k, v)]
        plain.append(torch_attention(q.to(d), *together, HEADS).float())
    errors = [(half - exact).norm() / exact.norm() for half, exact in (outputs, plain)]
    assert errors[0] < 2 * errors[1]


@pytest.mark.parametrize(("name", "limit"), [("kernel_3obj", 1e-5), ("kernel_peaky", 1e-4)])
def test_one_layer_of_the_published_code(name, limit):
    golden, params = case(f"mip_adapter/{name}")
    golden = {key: tensor.float() for key, tensor in golden.items()}
    heads, counts = params["heads"], params["entity_token_counts"]
    q = golden["hidden"] @ golden["to_q.weight"].mT
    text = torch_attention(
        q, golden["context"] @ golden["to_k.weight"].mT, golden["context"] @ golden["to_v.weight"].mT, heads
    )
    phrases = [golden["entity_context"][:, i, 1 : count + 1] for i, count in enumerate(counts)]
    maps = object_maps(q, torch.cat(phrases, 1) @ golden["to_k.weight"].mT, counts, heads=heads)
    weights, gate = merge_weights(maps), text_gate(text, golden["text_to_weight.weight"])
    k, v = (golden["image_tokens"] @ golden[f"to_{x}_ip.weight"].mT for x in "kv")
    image = image_values(image_probabilities(q, k, heads=heads), v, gate[:, None] * weights)
    image = params["scale"] * image
    out = (text + image) @ golden["to_out.weight"].mT + golden["to_out.bias"]

    computed = {"text_out": text, "text_gate": gate, "object_map": maps.exp(), "image_out": image, "out": out}
    for key, value in computed.items():
        assert (value - golden[key]).abs().max() < limit, key
    assert (weights - golden["merge_weight"]).abs().max() < 5 * limit


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("lengths", [[4, 4, 4], [1, 6, 5], [12]])
def test_pictures_of_unequal_lengths_are_each_for_itself(joint, lengths):
    """One flat axis of tokens: each picture's part alone, or together with the others', with ln R in the logits."""
    q, k, v = normal(2, 9, 8), normal(12, 8), normal(12, 8, seed=1)
    regions = torch.rand(len(lengths), 9, generator=torch.Generator().manual_seed(0))
    factors = torch.rand(2, len(lengths), 9, generator=torch.Generator().manual_seed(1))
    log_regions = regions.log() if joint else None
    probabilities = image_probabilities(q, k, heads=HEADS, lengths=lengths, joint=joint, log_regions=log_regions)
    out = image_values(probabilities, v, factors, lengths=lengths)
    expected = torch.zeros(2, 9, 8)
    first = 0
    whole = torch.zeros(2, HEADS, 9)
    split = [t.view(*t.shape[:-1], HEADS, 4) for t in (q, k, v)]
    scores = torch.einsum("bnhd,mhd->bhnm", split[0], split[1]) / 2
    if joint:
        place = torch.tensor([i for i, length in enumerate(lengths) for _ in range(length)])
        scores = scores + regions.log()[place].mT
        whole = scores.exp().sum(-1)
    for i, length in enumerate(lengths):
        part = scores[..., first : first + length].exp()
        weights = part / (whole if joint else part.sum(-1))[..., None]
        torch.testing.assert_close(probabilities[..., first : first + length], weights, rtol=1e-4, atol=1e-6)
        seen = torch.einsum("bhnm,mhd->bnhd", weights, split[2][first : first + length]).flatten(2)
        expected += factors[:, i, :, None] * seen
        first += length
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    shares = picture_shares(probabilities, lengths)
    assert shares.shape == (2, len(lengths), 9)
    if joint:
        torch.testing.assert_close(shares.sum(1), torch.ones(2, 9))


def test_equal_shares():
    """R_i max R / sum R; nothing where nobody may be; and what shared tokens get in sum."""
    regions = torch.tensor([[1.0, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.25]])
    found = equal_shares(regions)
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.5, 0.0, 0.0, 0.25]]))
    strengths = torch.tensor([0.5, 2.0])
    torch.testing.assert_close(strengths @ found, shared_weight(strengths, regions))
