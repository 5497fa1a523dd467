"""Graphs of the kind that people post: what must hold with our techniques in them, whatever stands beside."""

import comfy.samplers
import pytest
import torch
from comfy_extras import nodes_custom_sampler, nodes_model_merging, nodes_perpneg
from comfy_extras.nodes_differential_diffusion import DifferentialDiffusion
from comfy_extras.nodes_model_advanced import RescaleCFG
from composition.foreign import FREEU, PAG, by_node, lora
from support.compare import differ
from support.concepts import conducted, random_concepts, random_lora, strip, with_lora
from support.controlnets import controlnet
from support.image_prompts import with_pictures
from support.models import execute, sample, tiny_model
from support.references import PixelVAE, draw, prompt, with_references

from nodes import (
    ConditioningCombine,
    ConditioningSetMask,
    ConditioningSetTimestepRange,
    ControlNetApplyAdvanced,
    InpaintModelConditioning,
    LatentUpscaleBy,
)
from pack.nodes.concept_conductor.concepts_node import AddConcept

# Rounding of other batches, which the tiny UNets amplify.
ROUNDING = 2e-3
NOISE = draw(2, 4, 8, 8, seed=8)
OURS = {
    "MRSA": with_references,
    "MIP-Adapter": with_pictures,
    "Concept Conductor": lambda model: conducted(model, refine_start=0.0, refine_end=1.0, kmeans_restarts=2),
}
techniques = pytest.mark.parametrize("name", OURS)


@pytest.fixture(scope="module")
def model():
    with torch.inference_mode():
        return tiny_model()


@pytest.fixture(scope="module")
def texts(model):
    return prompt(model, 100, 77), prompt(model, 200, 77)


def made(node, *values):
    """What a node of the host gives first, of either kind."""
    result = node.execute(*values) if hasattr(node, "execute") else getattr(node(), node.FUNCTION)(*values)
    return getattr(result, "result", result)[0]


def drawn(model, texts, **more):
    return sample(model, *texts, **{"noise": NOISE[:1], "steps": 2, **more})


def guided(guider, steps=2):
    sigmas = comfy.samplers.calculate_sigmas(guider.model_patcher.get_model_object("model_sampling"), "normal", steps)
    latent, sampler = torch.zeros_like(NOISE[:1]), comfy.samplers.sampler_object("euler")
    return guider.sample(NOISE[:1], latent, sampler, sigmas, seed=1, disable_pbar=True)


# {of several prompts that are one: a guider that must give what CFG gives}
GUIDERS = {
    "dual": lambda model, text, bad: (nodes_custom_sampler.DualCFGGuider, model, text, text, bad, 9.0, 5.0, "regular"),
    "nested": lambda model, text, bad: (nodes_custom_sampler.DualCFGGuider, model, text, text, bad, 5.0, 5.0, "nested"),
    "Perp-Neg": lambda model, text, bad: (nodes_perpneg.PerpNegGuider, model, text, bad, bad, 5.0, 1.0),
}


@techniques
@pytest.mark.parametrize("guider", GUIDERS)
def test_guiders_of_several_prompts(model, texts, name, guider):
    if (name, guider) == ("Concept Conductor", "Perp-Neg"):
        # a concept's own negative is another one than the empty prompt
        ours = conducted(model, random_concepts(model, negative=[None, None]))
    else:
        ours = OURS[name](model)
    assert differ(guided(made(*GUIDERS[guider](ours, *texts))), drawn(ours, texts)) < ROUNDING


@pytest.mark.parametrize("own", [False, True], ids=["no negative", "the guider's"])
def test_a_concept_reads_no_text_of_its_own_for_the_empty_prompt(model, texts, own):
    """One concept without weights, all over the picture and with the guider's own texts, is as no concept."""
    positive, negative = texts
    inputs = {"model": model, "positive": positive, "negative": negative if own else None}
    ours = conducted(model, execute(AddConcept, mask=torch.ones(1, 64, 64), **inputs)[0])

    def perp_neg(model):
        return guided(nodes_perpneg.PerpNegGuider.execute(model, *texts, prompt(model, 300, 77), 5.0, 1.0).result[0])

    assert differ(perp_neg(ours), perp_neg(model)) < ROUNDING
    assert differ(drawn(ours, texts), drawn(model, texts)) < ROUNDING
    assert differ(perp_neg(model), drawn(model, texts)) > 2 * ROUNDING


@techniques
def test_a_schedule_of_prompts_is_a_part_for_each(model, texts, name):
    (first, negative), second = texts, prompt(model, 177, 77)
    timed = ConditioningSetTimestepRange()
    (both,) = ConditioningCombine().combine(timed.set_range(first, 0.0, 0.2)[0], timed.set_range(second, 0.2, 1.0)[0])
    sampling = model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "normal", 4)
    seam = sum(float(sigma) > float(sampling.percent_to_sigma(0.2)) for sigma in sigmas)
    whole = drawn(OURS[name](model), (both, negative), sigmas=sigmas)
    ours = OURS[name](model)
    half = drawn(ours, (first, negative), sigmas=sigmas[: seam + 1])
    parts = drawn(ours, (second, negative), sigmas=sigmas[seam:], latent=half, noise=torch.zeros_like(half))
    assert differ(parts, whole) < ROUNDING
    assert differ(drawn(ours, texts, sigmas=sigmas), whole) > 2 * ROUNDING


@techniques
def test_halves_of_one_prompt_are_the_prompt(model, texts, name):
    positive, negative = texts
    masked = [ConditioningSetMask().append(positive, strip(half, 2), "default", 1.0)[0] for half in (0, 1)]
    (both,) = ConditioningCombine().combine(*masked)
    ours = OURS[name](model)
    assert differ(drawn(ours, (both, negative)), drawn(ours, texts)) < ROUNDING


@techniques
@pytest.mark.parametrize("soft", [False, True], ids=["masks", "differential"])
def test_each_row_keeps_what_its_own_noise_mask_keeps(model, texts, name, soft):
    latent, masks = draw(2, 4, 8, 8, seed=77), torch.stack([strip(0, 2, 8, 8), strip(1, 4, 8, 8)])
    ours = OURS[name](model)
    # the tooltip of 0.30's strength: 1 is as it was before there was one
    ours = by_node(DifferentialDiffusion)(ours) if soft else ours
    together = drawn(ours, texts, noise=NOISE, latent=latent, noise_mask=masks)
    for row in (slice(0, 1), slice(1, 2)):
        alone = drawn(ours, texts, noise=NOISE[row], latent=latent[row], noise_mask=masks[row])
        assert differ(together[row], alone) < ROUNDING
    kept = (masks < 0.5).expand_as(latent)
    assert soft or differ(together[kept], latent[kept]) < 1e-5


@techniques
def test_a_second_pass_starts_anew(model, texts, name):
    """Hires fix: with the MODEL of the first pass, or with one of its own."""
    ours = OURS[name](model)
    (larger,) = LatentUpscaleBy().upscale({"samples": drawn(ours, texts)}, "nearest-exact", 1.5)
    sampling = model.get_model_object("model_sampling")
    later = {"latent": larger["samples"], "noise": draw(1, 4, 12, 12, seed=3)}
    later["sigmas"] = comfy.samplers.calculate_sigmas(sampling, "normal", 6)[3:]
    assert torch.equal(drawn(ours, texts, **later), drawn(OURS[name](model), texts, **later))


@pytest.fixture(scope="module")
def merged():
    """Merges a MODEL with another one, and what that makes of the bare one: the host takes seconds for each."""
    other, shares = tiny_model(seed=5), {"input": 0.7, "middle": 0.5, "out": 0.9}

    def merge(model):
        return nodes_model_merging.ModelMergeBlocks().merge(model, other, **shares)[0]

    return merge, merge(tiny_model())


@pytest.mark.slow
@techniques
def test_merges_before_and_behind(model, texts, name, merged):
    merge, bare = merged
    assert torch.equal(drawn(merge(OURS[name](model)), texts), drawn(OURS[name](bare), texts))


@techniques
def test_a_chain_of_nodes_has_no_order_for_us(model, texts, name):
    chain = [by_node(RescaleCFG, 0.7), FREEU, PAG, lora]

    def patched(place):
        found = model
        for number, patch in enumerate(chain):
            found = patch(OURS[name](found) if number == place else found)
        return OURS[name](found) if place == len(chain) else found

    pictures = [drawn(patched(place), texts) for place in (0, 2, len(chain))]
    if name == "Concept Conductor":
        # a LoRA behind the conductor belongs to all concepts, one before it was there when they were made
        pictures = pictures[:2]
    assert all(torch.equal(one, pictures[0]) for one in pictures)


@pytest.mark.parametrize("name", ["MRSA", "Concept Conductor"])
def test_controlnets_that_act_by_turns_are_a_part_for_each(model, texts, name):
    nets, hint = [controlnet(model), controlnet(model)], draw(1, 64, 64, 3, seed=78).sigmoid()
    sampling = model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "normal", 4)
    seam = sum(float(sigma) > float(sampling.percent_to_sigma(0.5)) for sigma in sigmas)

    def controlled(*nets):
        conds = texts
        for net, weight, start, end in nets:
            conds = ControlNetApplyAdvanced().apply_controlnet(*conds, net, hint, weight, start, end)
        return conds

    whole = drawn(OURS[name](model), controlled((nets[0], 0.4, 0.0, 0.5), (nets[1], 0.2, 0.5001, 1.0)), sigmas=sigmas)
    ours = OURS[name](model)
    half = drawn(ours, controlled((nets[0], 0.4, 0.0, 1.0)), sigmas=sigmas[: seam + 1])
    rest = {"latent": half, "noise": torch.zeros_like(half), "sigmas": sigmas[seam:]}
    assert differ(drawn(ours, controlled((nets[1], 0.2, 0.0, 1.0)), **rest), whole) < ROUNDING
    assert differ(drawn(ours, texts, sigmas=sigmas), whole) > 10 * ROUNDING


def with_concept(model, concept, text, bad):
    (chain,) = execute(AddConcept, model=concept, positive=text, negative=bad, mask=strip(0, 2))
    return conducted(model, chain)


def inpainting(texts):
    picture = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(4))
    return InpaintModelConditioning().encode(*texts, picture, PixelVAE(), strip(0, 2), True)


@pytest.mark.parametrize("channels", [4, 9])
def test_prompts_of_an_inpainting_node(texts, said, channels):
    """On the concept they are its text alone, which is said; a concept that is the model itself changes nothing."""
    model = tiny_model(in_channels=channels, seed=4)
    *conds, latent = inpainting(texts)
    given = {"latent": latent["samples"], "noise_mask": latent["noise_mask"]}
    taught = with_lora(model, random_lora(model, 1), 1.0)
    found, wanted = (drawn(with_concept(model, taught, *one), conds, **given) for one in (conds, texts))
    assert torch.equal(found, wanted) and any("a picture to inpaint or edit" in one for one in said)
    bare = drawn(model, conds, **given)
    assert differ(found, bare) > 10 * ROUNDING
    assert differ(drawn(with_concept(model, model, *texts), conds, **given), bare) < ROUNDING
