"""MRSA at one block where something of another pack stands, cuts, merges or copies the rows: what comes out there."""

import math

import pytest
import torch
from composition import foreign
from composition.foreign import both, by_setter, override, squashed
from composition.scene import ONE_STEP, STRENGTHS, Expectation, Scene, same, unlike

from pack.kernels.reference_attention import multi_reference_attention, torch_attention

LAST = ("output", 11, 0)


def left(*size):
    mask = torch.zeros(size)
    mask[:, : size[1] // 2] = 1
    return mask


@pytest.mark.parametrize("tiles", [1, 16])
def test_callable_gets_all_rows_and_ours_is_added(tiles, keys):
    scene, seen, outputs = Scene(batch=2, size=(16, 16)), [], []

    def standing(q, k, v, options):
        seen.append((q, k, v, options))
        return squashed(q, k, v, options)

    model = by_setter("set_model_attn1_replace", standing, *LAST)(scene.ours())
    attention = scene.attentions()[-1]
    handle = attention.to_out.register_forward_pre_hook(lambda module, args: outputs.append(args[0]))
    scene.run(foreign.HYPERTILE(model) if tiles > 1 else model, sigmas=ONE_STEP)
    handle.remove()

    ((q, k, v, options),) = seen
    assert (q.shape[0], k.shape[0], v.shape[0]) == (4 * tiles, 4, 4)
    assert options["cond_or_uncond"] == [1, 0]
    k, v = (t.reshape(q.shape[0], -1, t.shape[-1]) for t in (k, v))
    ref_k, ref_v = (torch.cat([entry[LAST][i] for entry in keys]) for i in (0, 1))
    bias = torch.cat([torch.full((len(entry[LAST][0]),), 3 + math.log(s)) for entry, s in zip(keys, STRENGTHS)])
    expected = squashed(*seen[0])
    cond = slice(2 * tiles, None)
    ours = multi_reference_attention(q[cond], k[cond], v[cond], ref_k, ref_v, bias, heads=attention.heads)
    plain = torch_attention(q[cond], k[cond], v[cond], attention.heads)
    expected[cond] += ours - plain
    assert unlike(ours, plain)
    (out,) = outputs
    assert torch.equal(out[: 2 * tiles], expected[: 2 * tiles])
    assert same(out, expected)


@pytest.mark.parametrize("patch", [foreign.HYPERTILE, foreign.TOME], ids=["HyperTile", "ToMe"])
def test_regions_are_off_where_tokens_are_not_the_grid(patch, caplog):
    # the attentions of the first level, all of which are cut or merged
    scene, blocks, runs = Scene(size=(16, 16)), range(13, 16), []
    for regions in ((None, None), (left(16, 16), None)):
        torch.manual_seed(0)  # ToMe draws
        runs.append(scene.run(patch(scene.ours(regions=regions, blocks=blocks)), sigmas=ONE_STEP))
    assert torch.equal(runs[0].latent, runs[1].latent)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    # and without the patch they are on
    on = scene.run(scene.ours(regions=(left(16, 16), None), blocks=blocks), sigmas=ONE_STEP)
    assert unlike(on.calls[0].cond, scene.run(scene.ours(blocks=blocks), sigmas=ONE_STEP).calls[0].cond)


def test_merged_tokens():
    scene, latents = Scene(size=(16, 16)), []
    for model, expect in (
        (foreign.TOME(scene.model), Expectation(scene)),
        (foreign.TOME(scene.ours()), None),
        (scene.ours(foreign.TOME(scene.model)), None),
    ):
        torch.manual_seed(0)  # ToMe draws
        latents.append(scene.run(model, expect=expect, sigmas=ONE_STEP).latent)
    expected, first, last = latents
    assert torch.equal(first, last)
    assert same(first, expected)
    assert unlike(first, scene.run(scene.ours(), sigmas=ONE_STEP).latent)


def twice(n, context, value, options):
    return torch.cat([n, 1.1 * n]), torch.cat([context, 0.9 * context]), torch.cat([value, value])


UNREADABLE = {
    "rows doubled": both(
        by_setter("set_model_attn1_patch", twice),
        by_setter("set_model_attn1_output_patch", lambda n, options: sum(n.chunk(2)) / 2),
    ),
    "one row for all": both(
        *(
            by_setter("set_model_attn1_replace", lambda *args: squashed(*args).mean(0, keepdim=True), "output", number)
            for number in range(3, 12)
        )
    ),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_left_out_where_rows_cannot_be_told(name, caplog):
    scene, patch = Scene(), UNREADABLE[name]
    theirs = scene.run(patch(scene.model))
    for model in (patch(scene.ours()), scene.ours(patch(scene.model))):
        caplog.clear()
        assert torch.equal(scene.run(model).latent, theirs.latent)
        # once per run, not per block
        assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_override_sees_the_images_attentions_and_no_reference_pass():
    scene, seen = Scene(), []

    def record(function, q, k, v, heads, **more):
        seen.append((q.shape[0], q.shape[1], k.shape[1]))
        return function(q, k, v, heads, **more)

    scene.run(override(record)(scene.model), sigmas=ONE_STEP)
    # self- and cross-attention take turns; from the 8th on, one row is plain and one reads what the masks keep
    kept = {96: 32 + 48, 24: 8 + 12, 6: 2 + 4}
    expected = list(seen)
    for index in reversed(range(16, 32, 2)):
        n = expected[index][1]
        expected[index : index + 1] = [(1, n, n), (1, n, n + kept[n])]
    alone = scene.run(scene.ours(), sigmas=ONE_STEP)
    for model in (override(record)(scene.ours()), scene.ours(override(record)(scene.model))):
        seen.clear()
        # without an override the references are read by another kernel
        assert same(scene.run(model, sigmas=ONE_STEP).latent, alone.latent)
        assert seen == expected
