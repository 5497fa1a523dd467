"""References merged by log-sum-exp, where the host attends as PyTorch does: the same pictures, and when not."""

import logging

import comfy.ldm.modules.attention as host
import pytest
import torch
from support.compare import relative
from support.models import recording, tiny_model
from support.references import half_mask, picture, references, with_references

from pack.kernels import merged_attention as kernels
from pack.nodes.host import attention
from pack.nodes.reference_attention import reference_branch

# Sums of single precision in another order, in a UNet that magnifies them.
ROUNDING = 1e-4


@pytest.fixture(scope="module")
def model():
    return tiny_model(seed=1)


@pytest.fixture(params=["attention_pytorch", "attention_sub_quad"])
def merged(request, monkeypatch):
    """The groups that were merged, one list for each attention, with one of the host's functions."""
    seen, original = [], reference_branch.merged_attention

    def watched(kernel, q, own, lse, groups, **more):
        seen.append(groups)
        return original(kernel, q, own, lse, groups, **more)

    monkeypatch.setattr(host, "optimized_attention", getattr(host, request.param))
    monkeypatch.setattr(reference_branch, "merged_attention", watched)
    return seen


def grey_mask():
    mask = half_mask()
    mask[:, :, 16:24] = 0.5
    return mask


SETTINGS = {
    "published": ({}, {}, 1),
    "both sides": ({"style_fidelity": 0.0}, {}, 1),
    "a share of plain attention": ({"style_fidelity": 0.4}, {}, 1),
    "strengths": ({}, {"strength": [1.0, 0.5]}, 2),
    "regions": ({}, {"region": [half_mask(), None]}, 2),
}


@pytest.mark.parametrize("what", SETTINGS)
@pytest.mark.parametrize("rows", [1, 2])
def test_the_same_pictures(what, rows, model, merged, monkeypatch):
    inputs, fields, groups = SETTINGS[what]
    patched = with_references(model, references(**fields), **inputs)
    latent = {"latent": (rows, 4, 8, 8)}
    with monkeypatch.context() as context:
        context.setattr("pack.nodes.host.plain_rows.lse_kernel", lambda *args: None)
        expected = picture(patched, steps=2, **latent)
    assert not merged
    found = picture(patched, steps=2, **latent)
    assert relative(found, expected) < ROUNDING
    assert relative(picture(model, steps=2, **latent), expected) > 0.01
    assert merged and all(len(some) == groups for some in merged)


def test_grey_masks_take_channels(model, merged):
    picture(with_references(model, references(masks=[grey_mask(), half_mask()])), steps=1)
    assert not merged


def test_another_function_is_called(model, merged, monkeypatch):
    """By an override of another pack."""
    seen = []

    def override(function, *args, **kwargs):
        seen.append(args[0].shape)
        return function(*args, **kwargs)

    other = with_references(model)
    other.model_options["transformer_options"]["optimized_attention_override"] = override
    picture(other, steps=1)
    assert not merged
    assert seen


def test_a_function_of_another_kind_is_called(model, merged, monkeypatch):
    """One that rounds, say: no kernel of PyTorch gives what it gives."""
    function = host.optimized_attention
    monkeypatch.setattr(host, "optimized_attention", lambda *args, **kwargs: function(*args, **kwargs))
    picture(with_references(model), steps=1)
    assert not merged


def test_a_torch_without_the_kernel_is_told_once(model, merged, monkeypatch, caplog):
    patched = with_references(model)
    expected = picture(patched, steps=2)
    count = len(merged)
    assert count
    monkeypatch.setitem(kernels._KERNELS, "cpu", ("_no_such_attention",))
    kernels.kernel_with_lse.cache_clear()
    attention._tell_of_slower_form.cache_clear()
    try:
        with caplog.at_level(logging.INFO):
            assert relative(picture(patched, steps=2), expected) < ROUNDING
    finally:
        kernels.kernel_with_lse.cache_clear()
    assert len(merged) == count
    assert len([record for record in caplog.records if "log-sum-exp" in record.message]) == 1


def test_what_is_plain_stays_plain(model, merged):
    """Rows that read no references have exactly what the host alone gives them."""
    plain, patched = recording(model), recording(with_references(model))
    for one, _ in (plain, patched):
        picture(one, steps=1)
    assert merged
    assert torch.equal(plain[1].calls[0].uncond, patched[1].calls[0].uncond)
    assert not torch.equal(plain[1].calls[0].cond, patched[1].calls[0].cond)
