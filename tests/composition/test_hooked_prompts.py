"""LoRAs that hang on a prompt (the host's hooks), with keyframes too: what they change holds for our techniques."""

import comfy.hooks
import pytest
import torch
from comfy.lora import model_lora_keys_unet
from composition.foreign import lora_file
from support.compare import differ
from support.concepts import both_kinds, conducted, random_concepts, random_lora, strip, with_lora
from support.image_prompts import with_pictures
from support.models import execute, sample, tiny_model
from support.references import draw, prompt, with_references
from support.thorough import few_of

from pack.nodes.concept_conductor import conductor_run
from pack.nodes.concept_conductor.concepts_node import AddConcept
from pack.nodes.host.when import percent_of

STRENGTH = 0.3
TECHNIQUES = {
    "MRSA": with_references,
    "MIP-Adapter": with_pictures,
    "Concept Conductor": lambda model, base=None: conducted(model, both_kinds(base or model)),
    "layout picture": lambda model, base=None: conducted(model, random_concepts(base or model, 1), layout=True),
}


@pytest.fixture
def model():
    return tiny_model()


def hooked(conditioning, hooks):
    return [[tensor, {**values, "hooks": hooks}] for tensor, values in conditioning]


def mild_dora(model):
    """The MODEL with a DoRA whose magnitudes are near those of the weights: others blow rounding up."""
    state, weights, keys = random_lora(model, 5), model.model.state_dict(), model_lora_keys_unet(model.model, {})
    for name in [key.removesuffix(".lora_up.weight") for key in state if key.endswith(".lora_up.weight")]:
        size = weights[keys[name]].flatten(1).norm(dim=1, keepdim=True)
        state[f"{name}.dora_scale"] = size * (1 + 0.1 * draw(*size.shape, seed=len(name)))
    return with_lora(model, state, 1.0)


def with_concept(model, concept, negative=400):
    """The MODEL after the conductor, with one concept on its left half."""
    given = {"positive": prompt(model, 300), "negative": prompt(model, negative), "mask": strip(0, 2)}
    return conducted(model, execute(AddConcept, model=concept, **given)[0])


def texts(model):
    return prompt(model, 100, 77), prompt(model, 200, 77)


@pytest.mark.parametrize("name", few_of(TECHNIQUES, *list(TECHNIQUES)[:2]))
def test_a_lora_on_both_prompts_is_the_lora_on_the_model(model, name):
    """Concepts have their LoRAs on the checkpoint alone, in both."""
    state, attach = lora_file(model, 3), TECHNIQUES[name]
    patched = with_lora(model, state, STRENGTH)
    more = {"base": model} if name in ("Concept Conductor", "layout picture") else {}
    wanted = sample(attach(patched, **more), *texts(model))
    hooks = comfy.hooks.create_hook_lora(state, STRENGTH, 0.0)
    found = sample(attach(model), *(hooked(text, hooks) for text in texts(model)))
    assert torch.equal(found, wanted)
    assert differ(sample(attach(model), *texts(model)), wanted) > 1e-2


KINDS = {"LoRA": lambda model: with_lora(model, random_lora(model, 5), 1.0), "DoRA": mild_dora}


@pytest.mark.parametrize("kind", KINDS)
def test_a_lora_on_the_prompt_alone_is_in_that_prompts_rows(model, kind):
    """A step is that of both prompts by themselves: the one with the LoRA on the model, the other without."""
    positive, negative = texts(model)
    state, concept = lora_file(model, 3), KINDS[kind](model)
    hooks = comfy.hooks.create_hook_lora(state, STRENGTH, 0.0)
    ours = with_concept(model, concept, negative=300)
    found = sample(ours, hooked(positive, hooks), negative, steps=1, cfg=5.0)
    changed = with_concept(with_lora(model, state, STRENGTH), concept, negative=300)
    there, here = sample(changed, positive, steps=1, cfg=1.0), sample(ours, negative, steps=1, cfg=1.0)
    assert differ(found, here + 5 * (there - here)) < 1e-3
    assert differ(sample(ours, positive, negative, steps=1), found) > 1e-2


LATE = {
    "MRSA": with_references,
    "MIP-Adapter": with_pictures,
    "a concept with a LoRA": lambda model: with_concept(model, KINDS["LoRA"](model)),
    "a concept with a DoRA": lambda model: with_concept(model, KINDS["DoRA"](model)),
}


@pytest.mark.parametrize("name", few_of(LATE, "a concept with a DoRA"))
def test_a_lora_that_sets_in_late_is_that_of_a_second_part(name):
    # in double precision: the host samples both prompts in one call or in two
    model = tiny_model(dtype=torch.float64)
    ours, state = LATE[name](model), lora_file(model, 3)
    positive, negative = texts(model)
    sigmas = torch.tensor([9.0, 5.0, 2.0, 0.0])
    frames = comfy.hooks.HookKeyframeGroup()
    for strength, start in ((0.0, 0.0), (1.0, percent_of(5.0, model.get_model_object("model_sampling")) - 0.01)):
        frames.add(comfy.hooks.HookKeyframe(strength=strength, start_percent=start))
    late, always = (comfy.hooks.create_hook_lora(state, STRENGTH, 0.0) for _ in range(2))
    late.set_keyframes_on_hooks(frames)
    found = sample(ours, hooked(positive, late), negative, sigmas=sigmas)
    first = sample(ours, positive, negative, sigmas=sigmas[:2])
    parts = {"latent": first, "noise": torch.zeros_like(first), "sigmas": sigmas[1:]}
    assert differ(found, sample(ours, hooked(positive, always), negative, **parts)) < 1e-4
    assert differ(sample(ours, positive, negative, **parts), found) > 5e-2


def test_a_layout_picture_is_on_the_path_of_the_prompt_that_acts(model, monkeypatch):
    """Of two prompts that follow each other the second brings a LoRA: from there on the path is the LoRA's."""
    seen, real = [], conductor_run.Conducting.layout_latent

    def layout_latent(*args):
        seen.append(real(*args))
        return seen[-1]

    monkeypatch.setattr(conductor_run.Conducting, "layout_latent", layout_latent)

    def latents_of(model, base, positive):
        seen.clear()
        ours = conducted(model, random_concepts(base, 1), layout=True, guidance_end=1.0)
        sample(ours, positive, prompt(base, 200, 77), steps=4)
        return list(seen)

    state, (positive, _) = lora_file(model, 3), texts(model)
    hooks = comfy.hooks.create_hook_lora(state, STRENGTH, 0.0)
    (first,), (second,) = positive, hooked(positive, hooks)
    turns = [[first[0], {**first[1], "end_percent": 0.4}], [second[0], {**second[1], "start_percent": 0.4}]]
    found = latents_of(model, model, turns)
    plain, patched = latents_of(model, model, positive), latents_of(with_lora(model, state, STRENGTH), model, positive)
    assert len(found) == len(plain) == len(patched) == 4
    for one, expected in zip(found, (*plain[:2], *patched[2:]), strict=True):
        assert differ(one, expected) < 1e-4
    assert differ(plain[2], patched[2]) > 1e-3
