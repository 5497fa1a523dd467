"""A MODEL that the host runs on several devices at once: every technique gives what it gives on one."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Lock

import comfy.hooks
import comfy.model_management as mm
import pytest
import torch
from support.compare import relative
from support.concepts import conducted, dora, random_concepts, random_lora, strip, with_lora
from support.controlnets import controlnet
from support.devices import (
    CPUS,
    PLACES,
    at,
    model_with_factory,
    results,
    split,
    two_cards,
    with_cards,
    with_crossings,
    with_engine,
)
from support.image_prompts import with_pictures
from support.models import conditioning, execute, sample
from support.npnets import small_weights
from support.own_weights import one_concept
from support.references import draw, picture, prompt, with_references
from support.resadapter_sets import folder, with_set  # noqa: F401 (fixture)

from nodes import ControlNetApplyAdvanced
from pack.nodes.concept_conductor import conductor_run
from pack.nodes.concept_conductor.concepts_node import AddConcept
from pack.nodes.golden_noise.golden_noise_node import GoldenNoiseModel
from pack.nodes.golden_noise.npnet_file import net_from
from pack.nodes.host.attach import attach, techniques_of
from pack.nodes.host.bank import bank_of
from pack.nodes.host.run_records import latest_record
from pack.nodes.text_contexts.context_router import ContextRouter

pytestmark = with_engine

# in double precision batches of other sizes round alike; a ControlNet computes in single precision
ROUNDING, SINGLE = 1e-6, 1e-3
everywhere = pytest.mark.parametrize("place", PLACES)


def exact_model(*args, **kwargs):
    return model_with_factory(*args, dtype=torch.float64, **kwargs)


def in_both_orders(model, attach):
    return split(attach(model)), attach(split(model))


def two_prompts(model):
    return prompt(model, 100) + prompt(model, 101), prompt(model, 200)


# concepts


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("sd15", "two keys"),
        pytest.param("sd15", "two cards", marks=[with_cards, pytest.mark.slow]),
        ("sdxl", "two keys"),
    ],
)
def test_concepts_with_loras(monkeypatch, kind, place):
    with at(place, monkeypatch):
        model = exact_model(kind)
        attach = partial(conducted, chain=random_concepts(model))
        wanted = picture(attach(model), steps=2)
        _, crossed = with_crossings(picture, split(model), steps=2)
        assert relative(picture(model, steps=2), wanted) > 0.01
        for ours in in_both_orders(model, attach):
            found, more = with_crossings(picture, ours, steps=2)
            assert relative(found, wanted) < ROUNDING
            # the adapters of each device are there
            assert more == crossed


@everywhere
def test_a_concept_with_weights_of_its_own(monkeypatch, place):
    """Afterwards the bare model is what it was, to the bit."""
    with at(place, monkeypatch):
        model = exact_model()
        bare = picture(model, steps=2)
        attach = partial(conducted, chain=one_concept(model, dora(random_lora(model, 7))))
        wanted = picture(attach(model), steps=2)
        assert relative(bare, wanted) > 0.05
        for ours in in_both_orders(model, attach):
            assert relative(picture(ours, steps=2), wanted) < ROUNDING
            assert torch.equal(picture(model, steps=2), bare)


@everywhere
def test_a_concept_of_another_checkpoint(monkeypatch, place):
    """Whose MODEL is split as well: its copies are not taken for the picture's."""
    with at(place, monkeypatch):
        model, other = exact_model(), exact_model(seed=3)
        file = random_lora(model, 7)
        wanted = picture(conducted(model, one_concept(other, file)), steps=2)
        assert relative(picture(conducted(model, one_concept(model, file)), steps=2), wanted) > 0.01
        for concept in (other, split(other)):
            ours = conducted(split(model), one_concept(concept, file))
            assert relative(picture(ours, steps=2), wanted) < ROUNDING


@pytest.mark.slow
@pytest.mark.parametrize("change", [dict, dora], ids=["lora", "dora"])
def test_twenty_runs_of_concepts_are_one(monkeypatch, change):
    at("two keys", monkeypatch)
    model = exact_model()
    bare = picture(model)
    ours = split(conducted(model, one_concept(model, change(random_lora(model, 7)))))
    assert len(results(ours, prompt(model, 100), prompt(model, 200), steps=2)) == 1
    assert torch.equal(picture(model), bare)


def three_prompts(model):
    return [entry for seed in (100, 101, 102) for entry in prompt(model, seed)], prompt(model, 200)


def prompts_in_places(model):
    """A chain of concepts without LoRAs."""
    chain = ()
    for number in range(2):
        text, mask = prompt(model, 300 + number), strip(number, 2)
        (chain,) = execute(AddConcept, model=model, positive=text, mask=mask, concepts=chain)
    return chain


@pytest.mark.slow
def test_refinement_does_not_depend_on_which_thread_is_first(monkeypatch):
    at("two keys", monkeypatch)
    model = exact_model()
    settings = {"refine_start": 0.0, "refine_end": 1.0, "kmeans_restarts": 5}
    ours = conducted(model, prompts_in_places(model), **settings)
    (found,) = results(split(ours), *three_prompts(model), steps=4)
    assert relative(found, sample(ours, *three_prompts(model), steps=4)) < ROUNDING
    unrefined = conducted(model, prompts_in_places(model))
    assert relative(sample(unrefined, *three_prompts(model), steps=4), found) > 1e-3


@pytest.mark.parametrize("devices", [1, 2])
def test_the_first_prompt_of_the_list_shows_the_shapes(monkeypatch, devices):
    """Of those that run: the host batches them the other way round, and a prompt may begin later."""
    at("two keys", monkeypatch)
    model = exact_model()
    ours = conducted(model, prompts_in_places(model), refine_start=0.0, refine_end=0.0, kmeans_restarts=2)
    ours = split(ours) if devices == 2 else ours
    seen = []
    monkeypatch.setattr(conductor_run.Conducting, "refine", lambda run, step, grid, maps: seen.append(maps[None]))

    def shapes(*positives):
        seen.clear()
        sample(ours, [entry for one in positives for entry in one], prompt(model, 200), steps=1)
        (found,) = seen
        return found

    first, second, third = (prompt(model, seed) for seed in (100, 101, 102))
    late = [[tensor, {**values, "start_percent": 0.5}] for tensor, values in first]
    assert relative(shapes(second), shapes(first)) > 10 * ROUNDING
    assert relative(shapes(first, second, third), shapes(first)) < ROUNDING
    assert relative(shapes(late, second, third), shapes(second)) < ROUNDING


@everywhere
def test_a_controlnet_beside_concepts(monkeypatch, place):
    with at(place, monkeypatch):
        model = exact_model()
        net, hint = controlnet(model), torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(5))
        texts = ControlNetApplyAdvanced().apply_controlnet(
            prompt(model, 100), prompt(model, 200), net, hint, 0.5, 0.0, 1.0
        )
        ours = conducted(model, random_concepts(model))
        wanted = sample(ours, *texts, steps=2)
        assert relative(picture(ours, steps=2), wanted) > 0.01
        assert relative(sample(split(ours), *texts, steps=2), wanted) < SINGLE


# references, image prompts, texts, noise


@everywhere
@pytest.mark.parametrize("merge", ["weighted", "joint"])
def test_image_prompts(monkeypatch, merge, place):
    """The maps add up what was seen on all devices."""
    with at(place, monkeypatch):
        model = exact_model()
        attach = partial(with_pictures, merge=merge)
        alone = attach(model)
        wanted = sample(alone, *two_prompts(model), steps=2)
        assert relative(sample(model, *two_prompts(model), steps=2), wanted) > 0.01
        for ours in in_both_orders(model, attach):
            assert relative(sample(ours, *two_prompts(model), steps=2), wanted) < ROUNDING
            maps, expected = (latest_record(techniques_of(one)[0]) for one in (ours, alone))
            assert [word for word, _ in maps] == ["a cat", "hat"]
            for (_, one), (_, other) in zip(maps, expected, strict=True):
                assert relative(one, other) < ROUNDING


@pytest.mark.slow
@with_cards
def test_words_in_the_prompt(monkeypatch):
    """Read by each device's own matrices, from its own rows."""
    with two_cards(monkeypatch):
        model = exact_model()
        attach = partial(with_pictures, phrase_source="prompt", prompt="a cat with a hat")
        texts = conditioning(draw(1, 77, 32, seed=4)), prompt(model, 200, 77)
        wanted = sample(attach(model), *texts, steps=2)
        assert relative(sample(with_pictures(model), *texts, steps=2), wanted) > 1e-3
        assert relative(sample(split(attach(model)), *texts, steps=2), wanted) < ROUNDING


HOOKED = {
    "image prompts": with_pictures,
    "references": partial(with_references, blocks="all up", style_fidelity=0.5, cache_mb=0),
}


@pytest.mark.slow
@pytest.mark.parametrize("attach", HOOKED.values(), ids=HOOKED)
def test_each_device_asks_for_its_own_weights(monkeypatch, attach):
    """One of three prompts has a LoRA hook: on each device other weights are in force at one time."""
    at("two keys", monkeypatch)
    model = exact_model()
    hook = comfy.hooks.create_hook_lora(random_lora(model, 55, scale=0.6), 1.0, 0.0)
    hooked = comfy.hooks.set_hooks_for_conditioning(prompt(model, 100) + prompt(model, 102), hook)
    texts = hooked + prompt(model, 101), prompt(model, 200)
    wanted = sample(attach(model), *texts, steps=1)
    (found,) = results(split(attach(model)), *texts, steps=1)
    assert relative(found, wanted) < ROUNDING


@pytest.mark.parametrize("place", ["two keys", pytest.param("two cards", marks=with_cards)])
def test_references(monkeypatch, place):
    with at(place, monkeypatch):
        model = exact_model()
        attach = partial(with_references, style_fidelity=0.5, cache_mb=64)
        wanted = sample(attach(model), *two_prompts(model), steps=2)
        assert relative(sample(model, *two_prompts(model), steps=2), wanted) > 0.01
        for ours in in_both_orders(model, attach):
            # the second finds keys in the bank that the first has put there, from each device
            assert relative(sample(ours, *two_prompts(model), steps=2), wanted) < ROUNDING


def test_one_bank_serves_all_devices(monkeypatch):
    at("two keys", monkeypatch)
    model = model_with_factory()
    ours = split(with_references(model, style_fidelity=0.5, cache_mb=64))
    sample(ours, *two_prompts(model), steps=1)
    (other,) = ours.get_additional_models_with_key("multigpu")
    assert other.model is not model.model and bank_of(other.model) is bank_of(model.model)
    assert bank_of(model.model).bytes


@pytest.mark.slow
def test_two_samplings_of_one_checkpoint_at_once(monkeypatch):
    """With the same techniques, on two copies of the model: each gives what it gives alone."""
    at("two keys", monkeypatch)
    model = exact_model()
    chain = random_concepts(model, 1) + one_concept(model, dora(random_lora(model, 7)))
    settings = {"refine_start": 0.0, "refine_end": 1.0, "kmeans_restarts": 2}
    ours = with_references(with_pictures(conducted(model, chain, **settings)), cache_mb=64)
    models = ours, ours.deepclone_multigpu(next(one for one in CPUS if one != ours.load_device))
    seeds = range(2)
    alone = [picture(one, seed=seed) for one, seed in zip(models, seeds, strict=True)]
    # the host's own lists are made for one thread
    lock, load = Lock(), mm.load_models_gpu

    def loading(*args, **kwargs):
        with lock:
            return load(*args, **kwargs)

    monkeypatch.setattr(mm, "load_models_gpu", loading)

    def sampled(one, seed):
        with torch.inference_mode():
            return picture(one, seed=seed)

    with ThreadPoolExecutor(2) as pool:
        for _ in range(3):
            found = pool.map(sampled, models, seeds)
            # where tensors lie in memory may change the order of a sum
            assert all(relative(one, wanted) < ROUNDING for one, wanted in zip(found, alone, strict=True))


@everywhere
def test_all_techniques_at_once(monkeypatch, folder, place):  # noqa: F811
    """With a LoRA under them; afterwards the bare model is what it was, to the bit."""
    with at(place, monkeypatch):
        model = exact_model()
        loras = [random_lora(model, number) for number in range(3)]
        layered = conditioning(draw(1, 77, 32, seed=1), personalization_layers=draw(16, 77, 32, seed=2))
        # in the second step one more prompt runs, which sends the layered one to the other device
        late = [[tensor, {**values, "start_percent": 0.3}] for tensor, values in prompt(model, 102, 77)]
        texts = prompt(model, 101, 77) + late + layered, prompt(model, 200, 77)

        def everything(model):
            chain = ()
            for number, file in enumerate((loras[1], dora(loras[2]))):
                own, mask, text = with_lora(model, file, 1.0), strip(number, 2), prompt(model, 300 + number)
                (chain,) = execute(AddConcept, model=own, positive=text, mask=mask, concepts=chain)
            ours = with_set(with_lora(model, loras[0], 1.0), "tiny_resadapter_v2_sd1.5", alpha=0.3)[0]
            ours = with_references(with_pictures(attach(ours, ContextRouter(("ED-LoRA",)))))
            net = net_from(small_weights(prompt=32), "small")
            (ours,) = execute(GoldenNoiseModel, model=ours, npnet=net, conditioning=layered)
            return conducted(ours, chain, layout=True, refine_start=0.0, refine_end=1.0, kmeans_restarts=2)

        bare = picture(model, steps=1)
        wanted = sample(everything(model), *texts, steps=2)
        assert relative(sample(model, *texts, steps=2), wanted) > 0.05
        _, crossed = with_crossings(sample, split(model), *texts, steps=2)
        assert crossed or place == "two keys"
        for ours in in_both_orders(model, everything):
            found, more = with_crossings(sample, ours, *texts, steps=2)
            assert relative(found, wanted) < ROUNDING
            # nothing of ours is sent to and fro between the cards
            assert more == crossed
            assert torch.equal(picture(model, steps=1), bare)
