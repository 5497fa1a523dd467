"""How techniques join a MODEL: in an order of their own, immutable, the MODEL that came in left alone."""

import itertools
import weakref
from types import SimpleNamespace

import pytest
import torch
from support.concepts import conducted
from support.image_prompts import with_pictures
from support.models import sample, tiny_model
from support.references import prompt, with_references

from pack.nodes.host.attach import attach, techniques_of
from pack.nodes.host.run import Run
from pack.nodes.host.technique import Technique
from pack.nodes.text_contexts.context_router import ContextRouter


def named(name, order, log=None):
    class Named(Technique):
        def around(self, call, forward):
            def wrapped(*args):
                log.append(self.name)
                return forward(*args)

            return wrapped

    made = Named()
    made.name, made.order = name, order
    return made


def test_techniques_stand_in_their_order_however_they_are_named_and_joined():
    """Names are no order: the alphabet would nest them the other way round."""
    model = tiny_model("sd15")
    kinds = [("z", 1), ("m", 2), ("a", 3)]
    for order in itertools.permutations(kinds):
        log, patched = [], model
        for name, number in order:
            patched = attach(patched, named(name, number, log))
        assert [technique.name for technique in techniques_of(patched)] == ["z", "m", "a"]
        sample(patched, prompt(model, 1), prompt(model, 2), steps=1, cfg=1.0)
        # the last one is the outermost
        assert log == ["a", "m", "z"]
    assert techniques_of(model) == ()


def test_no_two_techniques_have_one_place():
    model = tiny_model("sd15")
    patched = attach(with_pictures(with_references(conducted(model))), ContextRouter(("ED-LoRA",)))
    techniques = techniques_of(patched)
    assert [t.name for t in techniques] == ["concept_conductor", "context_router", "image_prompts", "mrsa"]
    assert len({t.order for t in techniques}) == len(techniques)


def held(value, depth=3):
    """What an object holds, by identity: (attribute, id) of all attributes, and of theirs."""
    if depth == 0 or not hasattr(value, "__dict__"):
        return id(value)
    # what is found once and stays the same (a cached property, kept tokens) is no change
    return {name: (id(part), held(part, depth - 1)) for name, part in vars(value).items()}


MAKERS = {
    "references": with_references,
    "pictures": with_pictures,
    "concepts": lambda model: conducted(model, layout=True),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_run_changes_no_technique(make):
    model = tiny_model("sd15")
    patched = make(model)
    before = [held(technique, 2) for technique in techniques_of(patched)]
    for size in ((1, 4, 8, 8), (2, 4, 8, 16)):
        sample(patched, prompt(model, 100), prompt(model, 200), steps=1, latent=size)
    assert [held(technique, 2) for technique in techniques_of(patched)] == before


def test_a_run_that_somebody_keeps_holds_nothing_of_the_host():
    """A pack that copies the options of a running sampler may keep the run in them."""
    latents = torch.zeros(1, 4, 8, 8)
    of_the_host = SimpleNamespace(latents=latents)
    run = Run(of_the_host, latents.shape, sampler=of_the_host, continued=latents)
    held = weakref.ref(latents)
    del latents, of_the_host
    assert held() is not None
    run.close()
    assert held() is None


@pytest.mark.parametrize("names", [("first", "second"), ("second", "first")])
def test_patches_and_passes_follow_the_order(names):
    """Of two techniques in one slot the first runs first, before what stands there; and it is nearest to the UNet."""
    seen = []

    class Noting(Technique):
        def __init__(self, name):
            self.name, self.order = name, ("first", "second").index(name)

        def patches(self, call):
            return {"attn2_patch": lambda n, context, value, options: (seen.append(self.name), (n, context, value))[1]}

        def around(self, call, forward):
            return lambda *args: (seen.append(f"{self.name} begins"), forward(*args))[1]

    model = tiny_model("sd15").clone()
    model.set_model_attn2_patch(lambda n, context, value, options: (seen.append("standing"), (n, context, value))[1])
    for name in names:
        model = attach(model, Noting(name))
    sample(model, prompt(model, 1), prompt(model, 2), steps=1)
    assert seen[:5] == ["second begins", "first begins", "first", "second", "standing"]
