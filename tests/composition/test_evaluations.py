"""Other packs that leave out, copy or divide the evaluations that a sampler asks for: in any order of nodes."""

import pytest
import torch
from comfy.patcher_extension import WrappersMP
from composition.foreign import by_setter
from support.compare import differ
from support.concepts import conducted, random_concepts
from support.image_prompts import with_pictures
from support.models import tiny_model
from support.references import picture, with_references


@pytest.fixture
def model():
    return tiny_model()


def around_evaluations(function):
    return by_setter("add_wrapper_with_key", WrappersMP.PREDICT_NOISE, "another pack", function)


def every_other():
    """As caches of steps do, which put the last step's change on what comes in."""
    kept = []

    def predict(executor, x, *rest):
        if len(kept) % 2:
            kept.append(None)
            return x + kept[-2]
        result = executor(x, *rest)
        kept.append(result - x)
        return result

    return around_evaluations(predict)


def guided(model):
    return conducted(model, random_concepts(model, 1), layout=True, guidance_end=1.0)


def test_guidance_moves_the_latent_also_in_steps_that_a_cache_leaves_out(model):
    before, behind = (picture(one, steps=4) for one in (every_other()(guided(model)), guided(every_other()(model))))
    assert torch.equal(before, behind)
    short = conducted(model, random_concepts(model, 1), layout=True, guidance_end=0.0)
    assert differ(picture(every_other()(short), steps=4), before) > 1e-2


def test_guidance_moves_the_samplers_own_latent_behind_a_node_that_copies_it(model):
    copies = around_evaluations(lambda executor, x, *rest: executor(x.clone(), *rest))
    wanted = picture(guided(model), steps=2)
    assert torch.equal(picture(copies(guided(model)), steps=2), wanted)
    assert torch.equal(picture(guided(copies(model)), steps=2), wanted)


def one_list_each(executor, base, conds, *rest):
    """Prompt and negative in calls of their own, each of a single list."""
    return [executor(base, [entries], *rest)[0] for entries in conds]


OURS = {"MRSA": with_references, "MIP-Adapter": with_pictures, "Concept Conductor": conducted}


@pytest.mark.parametrize("name", OURS)
def test_prompt_and_negative_are_told_apart_in_lists_of_their_own(model, name):
    ours = OURS[name]
    apart = by_setter("add_wrapper_with_key", WrappersMP.CALC_COND_BATCH, "another pack", one_list_each)
    before, behind = (picture(one, steps=2) for one in (apart(ours(model)), ours(apart(model))))
    assert torch.equal(before, behind)
    assert differ(before, picture(ours(model), steps=2)) < 1e-3
