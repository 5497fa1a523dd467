"""The mean map of an attention's heads against recorded values and the plain formula."""

import torch
from support.golden_data import case

from pack.kernels import attention_map
from pack.kernels.attention_map import head_mean_map


def test_golden():
    golden, params = case("concept_conductor/kernels")
    ours = head_mean_map(golden["attn/q"], golden["attn/k"], params["attn"]["heads"])
    torch.testing.assert_close(ours, golden["attn/mean_all_heads"], rtol=0, atol=1e-6)


def test_plain_formula_in_chunks(monkeypatch):
    q, k = torch.randn(2, 13, 12), torch.randn(2, 7, 12)
    expected = torch.zeros(2, 13, 7)
    for head in range(3):
        part = slice(4 * head, 4 * head + 4)
        expected += torch.softmax(q[..., part] @ k[..., part].transpose(1, 2) / 2, -1) / 3
    for chunk in (1, 20, 1 << 20):
        monkeypatch.setattr(attention_map, "_CHUNK", chunk)
        torch.testing.assert_close(head_mean_map(q, k, 3), expected)


def test_half_precision_sums_in_float32():
    q, k = torch.randn(1, 64, 64), torch.randn(1, 64, 64)
    ours = head_mean_map(q.half(), k.half(), 8)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.sum(-1), torch.ones(1, 64))


def test_half_precision_is_not_rounded_again():
    """Keys are scaled in float32: 1 / sqrt(40) is no power of two."""
    q, k = (torch.randn(1, 32, 80, generator=torch.Generator().manual_seed(i)).bfloat16() for i in (0, 1))
    torch.testing.assert_close(head_mean_map(q, k, 2), head_mean_map(q.float(), k.float(), 2), rtol=1e-5, atol=1e-7)
