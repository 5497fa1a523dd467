"""AlignIT by property: what is spliced where, which weights read it, and what is refused."""

import comfy.hooks
import node_helpers
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from composition.scene import same
from support.clips import encoded, tiny_clip
from support.compare import differ, relative
from support.concepts import random_lora, with_lora
from support.contexts import random
from support.models import execute, sample, tiny_model

import nodes
from pack.nodes.host.blocks import name_of_block
from pack.nodes.host.layered_prompts import LAYERS
from pack.nodes.text_contexts.alignit_model import AlignIT
from pack.nodes.text_contexts.alignit_node import AlignModel, AlignPrompt
from pack.nodes.text_contexts.concept_words import Word, with_words


def word(name="<dog>", layers=1, tokens=1):
    return Word(name, {"l": random(tokens, 1, layers, 32, seed=3)})


def align(clip, base, prompt, concept="<dog>", class_word="cat", **inputs):
    texts = {"prompt": prompt, "concept": concept, "class_word": class_word}
    return execute(AlignPrompt, clip=clip, base_clip=base, **texts, **inputs)[0]


@pytest.fixture(scope="module")
def base():
    return tiny_clip()


@pytest.fixture(scope="module")
def clip(base):
    return with_words(base, [word()])


def context(clip, text):
    return encoded(clip, text)[0][0]


def test_rows_before_and_behind_the_concept_are_the_bases(clip, base):
    prompt = "a <dog> in the sea, a <dog>"
    ((tensor, values),) = align(clip, base, prompt)
    plain, dummy = context(base, prompt.replace("<dog>", "cat")), context(clip, "a photo of a <dog>")
    expected = plain.clone()
    for row in (2, 8):
        expected[:, row] = dummy[:, 5]
    assert torch.equal(tensor, expected) and LAYERS not in values


def test_phrases_of_other_lengths(clip, base):
    """The concept has more tokens than the class word, or fewer: rows behind move, the length stays."""
    plain, dummy = context(base, "a cat in the sea"), context(clip, "a photo of a red <dog>")
    ((tensor, _),) = align(clip, base, "a red <dog> in the sea", "red <dog>")
    expected = torch.cat([plain[:, :2], dummy[:, 5:7], plain[:, 3:76]], 1)
    assert torch.equal(tensor, expected)
    plain = context(base, "a big brown cat in the sea")
    ((tensor, _),) = align(clip, base, "a <dog> in the sea", class_word="big brown cat")
    dummy = context(clip, "a photo of a <dog>")
    expected = torch.cat([plain[:, :2], dummy[:, 5:6], plain[:, 5:], plain[:, 76:], plain[:, 76:]], 1)
    assert torch.equal(tensor, expected)


def test_phrases_of_other_lengths_in_several_places(clip, base):
    plain, dummy = context(base, "a cat and a cat too"), context(clip, "a photo of a red <dog>")
    ((tensor, _),) = align(clip, base, "a red <dog> and a red <dog> too", "red <dog>")
    parts = [plain[:, :2], dummy[:, 5:7], plain[:, 3:5], dummy[:, 5:7], plain[:, 6:75]]
    assert torch.equal(tensor, torch.cat(parts, 1))


def test_a_concept_in_other_letters_and_inside_other_words(clip, base):
    for prompt, plain, concept in (
        ("a dog in a dogma", "a cat in a dogma", "dog"),
        ("a dogma of a dog", "a dogma of a cat", "dog "),
        ("a Dog in the sea", "a cat in the sea", "dog"),
        ("a <dog> in the sea", "a cat in the sea", " <dog> "),
        ("red<dog>2", "redcat2", "<dog>"),
        ("a dog2", "a cat2", "dog"),
    ):
        ((tensor, _),) = align(clip, base, prompt, concept)
        expected = context(base, plain)
        changed = [row for row in range(77) if not torch.equal(tensor[0, row], expected[0, row])]
        dummy, (row,) = context(clip, f"a photo of a {concept.strip()}"), changed
        assert torch.equal(tensor[0, row], dummy[0, 5])


@pytest.mark.parametrize("parts", ["keys", "values"])
def test_one_side_alone(parts, clip, base):
    prompt = "a <dog> in the sea"
    ((both, _),), ((tensor, values),) = align(clip, base, prompt), align(clip, base, prompt, parts=parts)
    keys, apart = values[LAYERS].at(500)
    customised = context(clip, prompt)
    expected = (both, customised) if parts == "keys" else (customised, both)
    assert torch.equal(keys, expected[0]) and torch.equal(apart, expected[1])
    assert torch.equal(tensor, both if parts == "keys" else customised)


def test_words_of_each_layer(base):
    """Of an ED-LoRA: the concept's rows differ by layer, all others are the base's."""
    taught = with_words(base, [word(layers=16)])
    ((tensor, values),) = align(taught, base, "a <dog> in the sea")
    keys, apart = values[LAYERS].keys, values[LAYERS].values
    plain = context(base, "a cat in the sea")
    dummy = encoded(taught, "a photo of a <dog>")[0][1][LAYERS]
    assert apart is None and keys.shape == (16, 77, 32)
    assert torch.equal(keys[:, 2], dummy[:, 5])
    assert torch.equal(keys[:, 3:], plain[:, 3:].expand(16, -1, -1)) and torch.equal(tensor, keys[:1])


def test_long_prompts_and_weights(clip, base):
    prompt = "sun, " * 45 + "a (<dog>:1.3) in the sea"
    ((tensor, _),) = align(clip, base, prompt)
    plain = context(base, prompt.replace("<dog>", "cat"))
    assert tensor.shape == plain.shape == (1, 154, 32)
    changed = [row for row in range(154) if not torch.equal(tensor[0, row], plain[0, row])]
    assert len(changed) == 1


def models(base_clip):
    base = tiny_model()
    return base, with_lora(base, random_lora(base, 3), 1.0)


def test_the_models_half(clip, base, caplog):
    """Its base's rows pass the base's projections; without marks, or with equal weights, nothing changes."""
    bare, customised = models(base)
    positive, negative = align(clip, base, "a <dog> in the sea"), encoded(clip, "bad")
    (patched,) = execute(AlignModel, model=customised, base_model=bare)
    (idle,) = execute(AlignModel, model=customised, base_model=customised)

    def run(model, positive=positive, **settings):
        return sample(model, positive, negative, steps=2, **settings)

    aligned = run(patched)
    assert differ(aligned, run(customised)) > 1e-3
    assert same(run(idle), run(customised))
    plain = encoded(clip, "a <dog> in the sea")
    assert torch.equal(run(patched, plain), run(customised, plain))
    # what is loaded or sampled meanwhile does not matter
    run(bare)
    assert torch.equal(run(patched), aligned)
    caplog.clear()
    for settings in ({"latent": (2, 4, 9, 13)}, {"cfg": 1.0}, {"sampler": "heun"}):
        assert torch.isfinite(run(patched, **settings)).all()
    assert not caplog.text
    joined = nodes.ConditioningConcat().concat(positive, encoded(clip, "sun"))[0]
    assert torch.isfinite(run(patched, joined)).all()
    combined = nodes.ConditioningCombine().combine(positive, plain)[0]
    assert differ(run(patched, combined), run(customised, combined)) > 1e-4


def test_prompts_that_the_host_repeats_act_as_alone(clip, base):
    """Beside a longer negative prompt the host repeats this one, and how often may change during a run."""
    bare, customised = models(base)
    (patched,) = execute(AlignModel, model=customised, base_model=bare)
    positive = align(clip, base, "a <dog> in the sea")
    short, long = encoded(clip, "bad"), encoded(clip, "bad, " * 50)

    def each_in_a_call(executor, inner, conds, *args, **kwargs):
        alone = [[one if place == own else None for place, one in enumerate(conds)] for own in range(len(conds))]
        return [executor(inner, several, *args, **kwargs)[own] for own, several in enumerate(alone)]

    apart = patched.clone()
    apart.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "apart", each_in_a_call)
    assert long[0][0].shape[1] == 2 * short[0][0].shape[1]
    for one, other in ((short, long), (long, short)):
        first = node_helpers.conditioning_set_values(one, {"end_percent": 0.4})
        turns = [*first, *node_helpers.conditioning_set_values(other, {"start_percent": 0.4})]
        together, alone = (sample(model, positive, turns, steps=2) for model in (patched, apart))
        assert relative(together, alone) < 1e-4


def test_the_bases_weights_beside_a_lora_that_hangs_on_the_prompt(clip, base, monkeypatch):
    bare, customised = models(base)
    own = {name: weight.clone() for name, weight in bare.model.diffusion_model.state_dict().items()}
    read = {}
    (patched,) = execute(AlignModel, model=customised, base_model=bare)
    real = AlignIT._weight
    monkeypatch.setattr(AlignIT, "_weight", lambda self, place: read.setdefault(place, real(self, place)))
    hooks = comfy.hooks.create_hook_lora(random_lora(bare, 9), 1.0, 0.0)
    positive = node_helpers.conditioning_set_values(align(clip, base, "a <dog> in the sea"), {"hooks": hooks})
    sample(patched, positive, encoded(clip, "bad"), steps=1)
    assert read
    for (block, side), weight in read.items():
        assert relative(weight, own[f"{name_of_block(block)}.attn2.{side}.weight"]) < 1e-6


def test_the_bases_weights_are_read_once_for_each_prompt(clip, base, monkeypatch):
    bare, customised = models(base)
    (patched,) = execute(AlignModel, model=customised, base_model=bare)
    real, read = AlignIT._weight, []
    monkeypatch.setattr(AlignIT, "_weight", lambda self, place: read.append(place) or real(self, place))
    two = (align(clip, base, "a <dog> in the sea"), align(clip, base, "a <dog> in the wood", parts="keys"))
    sample(patched, nodes.ConditioningCombine().combine(*two)[0], encoded(clip, "bad"), steps=2)
    # of the second one keys alone
    places = set(read)
    assert len(read) == len(places) + sum(side == "to_k" for _, side in places)


def test_the_bases_weights_are_read_once_for_words_that_vary(base, monkeypatch):
    """Other rows in each of ten stages are projected anew, by the same weights."""
    bare, customised = models(base)
    taught = with_words(base, [Word("<dog>", {"l": random(1, 10, 1, 32, seed=3)})])
    (patched,) = execute(AlignModel, model=customised, base_model=bare)
    prompts = align(taught, base, "a <dog> in the sea"), encoded(base, "bad")
    real, read = AlignIT._weight, []
    monkeypatch.setattr(AlignIT, "_weight", lambda self, place: read.append(place) or real(self, place))
    found = sample(patched, *prompts, steps=4)
    assert len(read) == len(set(read)) > 0
    monkeypatch.setattr(AlignIT, "projected", lambda self, held, key, rows, place: rows @ real(self, place).to(rows).T)
    assert same(sample(patched, *prompts, steps=4), found)


def test_a_clip_with_keyframes_is_refused(clip, base):
    hooks = comfy.hooks.create_hook_lora(random_lora(tiny_model(), 9), 1.0, 1.0)
    group = comfy.hooks.HookKeyframeGroup()
    for strength, start in ((1.0, 0.0), (0.5, 0.5)):
        group.add(comfy.hooks.HookKeyframe(strength, start_percent=start))
    hooks.set_keyframes_on_hooks(group)
    scheduled = clip.clone()
    scheduled.patcher.forced_hooks, scheduled.use_clip_schedule = hooks, True
    scheduled.apply_hooks_to_conds = None
    with pytest.raises(ValueError, match="this clip has hooks with keyframes, so it encodes a text 2 times"):
        align(scheduled, base, "a <dog> in the sea")


def test_parts_with_weights(clip, base):
    bare, customised = models(base)
    (patched,) = execute(AlignModel, model=customised, base_model=bare)
    negative = encoded(clip, "bad")
    found = [
        sample(patched, align(clip, base, "a <dog> in the sea", parts=parts), negative, steps=1)
        for parts in ("both", "keys", "values")
    ]
    assert all(differ(one, other) > 1e-4 for i, one in enumerate(found) for other in found[:i])


def test_a_run_without_its_prompt_is_said(clip, base, caplog):
    bare, customised = models(base)
    (patched,) = execute(AlignModel, model=customised, base_model=bare)
    sample(patched, encoded(clip, "a <dog>"), encoded(clip, "bad"), steps=1)
    assert "no prompt in this run comes from the AlignIT node" in caplog.text


def test_what_does_not_fit(clip, base):
    for says, inputs in {
        "concept is empty": {"concept": " "},
        "class_word is empty": {"class_word": ""},
        'dummy is "a photo"; write {} where': {"dummy": "a photo"},
        'the concept "<cat>" is not in the prompt': {"concept": "<cat>"},
        'of the dummy prompt falls into two parts of 77 tokens': {
            "concept": "<dog>" + " x" * 80, "prompt": "a <dog>" + " x" * 80},
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=says):
            align(clip, base, **{"prompt": "a <dog> in the sea", **inputs})
    with pytest.raises(ValueError, match="clip is empty"):
        align(clip, None, "a <dog>")
    with pytest.raises(ValueError, match="of different families"):
        execute(AlignModel, model=tiny_model(), base_model=tiny_model("sdxl"))
