"""Contexts in an ordinary sampler: other ones at each timestep, and keys apart from values."""

import pytest
import torch
from composition.scene import same, unlike
from support.contexts import every_attention, random
from support.models import conditioning, sample, tiny_model
from support.references import references, with_references
from support.thorough import few_of

import nodes
from pack.nodes.host.attach import attach
from pack.nodes.host.content_keys import digest
from pack.nodes.host.contexts import FixedContexts, StagedContexts
from pack.nodes.host.layered_prompts import LAYERS, PLAIN, contexts_of
from pack.nodes.text_contexts.context_router import ContextRouter

WIDTH, COUNT = {"sd15": 32, "sdxl": 48}, {"sd15": 16, "sdxl": 28}
BORDERS = tuple(range(100, 1000, 100))


def plain(kind="sd15", tokens=7, seed=100):
    values = {"pooled_output": random(1, 40, seed=seed + 1)} if kind == "sdxl" else {}
    return conditioning(random(1, tokens, WIDTH[kind], seed=seed), **values)


def staged(kind="sd15", layers=None, tokens=7, seed=0, values=True):
    """A conditioning with contexts of ten stages, keys apart from values."""
    shape = 10, layers or COUNT[kind], tokens, WIDTH[kind]
    keys = random(*shape, seed=seed)
    contexts = StagedContexts(keys, BORDERS, random(*shape, seed=seed + 50) if values else None)
    extra = {"pooled_output": random(1, 40, seed=seed + 1)} if kind == "sdxl" else {}
    return conditioning(keys[-1, :1], **{LAYERS: contexts, PLAIN: keys[-1, :1]}, **extra)


def by_row(*entries):
    """A change for `every_attention` that tells rows by their plain context and gives them what theirs says."""

    def own(contexts, index, like):
        return contexts[index % len(contexts)].repeat(len(like) // contexts.shape[1], 1)

    def change(index, timestep, context):
        keys, values = [], []
        for row in context:
            pair = row, row
            for tensor, more in entries:
                if torch.equal(tensor[0].repeat(len(row) // tensor.shape[1], 1), row):
                    contexts = more[LAYERS]
                    stage = int(timestep // 100)
                    found = (contexts.keys[stage], contexts.keys[stage])
                    if contexts.values is not None:
                        found = found[0], contexts.values[stage]
                    pair = tuple(own(one, index, row) for one in found)
            keys.append(pair[0])
            values.append(pair[1])
        return torch.stack(keys), torch.stack(values)

    return change


def run(model, positive, negative, kind="sd15", batch=1, size=(8, 8), steps=4, **settings):
    return sample(model, positive, negative, latent=(batch, 4, *size), steps=steps, **settings)


def check(kind, positive, negative, entries, **settings):
    """Our MODEL's latent = that of the bare one with keys and values swapped by hand; the bare one's own is another."""
    bare = tiny_model(kind, seed=1)
    ours = run(attach(bare, ContextRouter(("ED-LoRA",))), positive, negative, kind, **settings)
    with every_attention(bare.model.diffusion_model, by_row(*entries)):
        expected = run(bare, positive, negative, kind, **settings)
    assert same(ours, expected)
    assert unlike(ours, run(bare, positive, negative, kind, **settings))


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
@pytest.mark.parametrize("layers", [1, None], ids=["one layer", "every layer"])
def test_stages(kind, layers):
    (entry,) = staged(kind, layers)
    check(kind, [entry], plain(kind), [entry])


@pytest.mark.parametrize("sampler", few_of(["heun", "dpmpp_2s_ancestral", "dpmpp_sde", "uni_pc"], "heun"))
def test_samplers_that_ask_between_steps(sampler):
    (entry,) = staged(values=False)
    check("sd15", [entry], plain(), [entry], sampler=sampler)


def test_batches_lengths_and_both_sides():
    (one,), (two,) = staged(seed=1), staged(seed=2, values=False)
    check("sd15", [one], [two], [one, two], batch=2)
    check("sd15", [one], plain(tokens=14), [one], size=(9, 13))
    check("sd15", [one], plain(), [one], cfg=1.0)
    check("sd15", [one, two], plain(), [one, two])


def test_two_stages_of_an_advanced_sampler():
    (entry,) = staged()
    bare = tiny_model(seed=1)

    def both(model):
        latent = {"samples": torch.zeros(1, 4, 8, 8)}
        common = 1, 6, 5.0, "euler", "normal", [entry], plain()
        latent = nodes.KSamplerAdvanced().sample(model, "enable", *common, latent, 0, 3, "enable")[0]
        return nodes.KSamplerAdvanced().sample(model, "disable", *common, latent, 3, 10000, "disable")[0]["samples"]

    ours = both(attach(bare, ContextRouter(("ED-LoRA",))))
    with every_attention(bare.model.diffusion_model, by_row(entry)):
        assert same(ours, both(bare))


def test_what_nodes_do_to_the_plain_context_is_done_to_keys_and_values_of_each_stage():
    ((tensor, values),) = staged(layers=1)
    own = values[LAYERS]
    other, tail = random(1, 7, 32, seed=5), random(1, 3, 32, seed=6)
    for timestep, stage in ((0, 0), (99, 0), (100, 1), (555, 5), (900, 9), (999, 9)):
        keys, apart = contexts_of(tensor, values).at(timestep)
        assert torch.equal(keys, own.keys[stage]) and torch.equal(apart, own.values[stage])
        keys, apart = contexts_of(tensor * 0.5, values).at(timestep)
        assert torch.allclose(keys, own.keys[stage] / 2) and torch.allclose(apart, own.values[stage] / 2)
        keys, apart = contexts_of(0.8 * tensor + 0.2 * other, values).at(timestep)
        moved = 0.2 * (other - tensor)
        assert torch.allclose(keys, own.keys[stage] + moved, atol=1e-6)
        assert torch.allclose(apart, own.values[stage] + moved, atol=1e-6)
        keys, apart = contexts_of(torch.cat([tensor, tail], 1), values).at(timestep)
        assert torch.equal(keys, torch.cat([own.keys[stage], tail], 1))
        assert torch.equal(apart, torch.cat([own.values[stage], tail], 1))


def test_contexts_are_told_apart_by_content():
    keys, values = random(10, 2, 7, 32), random(10, 2, 7, 32, seed=1)
    found = [
        StagedContexts(keys, BORDERS, values),
        StagedContexts(keys, BORDERS),
        StagedContexts(keys, BORDERS, keys),
        StagedContexts(keys, (50, *BORDERS[1:]), values),
        StagedContexts(values, BORDERS, values),
        FixedContexts(keys[0]),
        FixedContexts(keys[0], values[0]),
    ]
    assert len({digest(one) for one in found}) == len(found)
    again = StagedContexts(keys.clone(), BORDERS, values.clone())
    assert digest(again) == digest(found[0])


def test_a_model_that_does_not_read_them_is_said(caplog):
    """Of a MODEL with another technique of ours alone; without any the host does all."""
    (entry,) = staged()
    model = with_references(tiny_model(), references(1), cache_mb=0)
    run(model, [entry], plain(), steps=1)
    assert caplog.text.count("only their plain text is read") == 1
    caplog.clear()
    run(attach(model, ContextRouter(("ED-LoRA",))), [entry], plain(), steps=1)
    run(model, plain(), plain(), steps=1)
    assert "plain text" not in caplog.text
