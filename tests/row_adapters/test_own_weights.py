"""Concepts that run with weights of their own: right, and the loaded checkpoint is never touched."""

import threading
from contextlib import contextmanager

import pytest
import torch
from support.compare import differ
from support.concepts import conducted, dora, random_lora, strip, with_lora
from support.models import execute, sample, tiny_model
from support.own_weights import one_concept
from support.references import draw, prompt

from pack.nodes.concept_conductor import conductor_run
from pack.nodes.concept_conductor.concepts_node import AddConcept
from pack.nodes.row_adapters.own_weights import with_weights

pytestmark = pytest.mark.slow


@pytest.fixture
def model():
    return tiny_model("sd15")


def picture(model, **kwargs):
    return sample(model, prompt(model, 100), prompt(model, 200), **kwargs)


def test_a_module_with_other_weights_shares_the_rest():
    plain = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU()))
    before = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    ours = with_weights(plain, {"1.0": {"weight": torch.zeros(3, 3)}})
    x = torch.randn(4, 2)
    assert torch.equal(ours(x), plain[1][0].bias.relu().expand(4, -1))
    assert ours[0] is plain[0] and ours[1][1] is plain[1][1] and ours[1][0].bias is plain[1][0].bias
    assert all(torch.equal(tensor, before[name]) for name, tensor in plain.state_dict().items())


@contextmanager
def inside(model, do):
    """Calls do() whenever this thread is in the middle of a call of the MODEL's UNet."""
    thread = threading.get_ident()

    def look(*_):
        if threading.get_ident() == thread:
            do()

    handle = model.model.diffusion_model.middle_block[0].register_forward_hook(look)
    try:
        yield
    finally:
        handle.remove()


def test_while_a_concept_runs_the_checkpoint_stays_as_it_is(model):
    """Looked at from inside the concept's own pass, not only afterwards."""
    before = {key: weight.clone() for key, weight in model.model.diffusion_model.state_dict().items()}
    ours = conducted(model, one_concept(model, dora(random_lora(model, 7))))
    seen = []

    def look():
        standing = model.model.diffusion_model.state_dict()
        seen.append(all(torch.equal(weight, before[key]) for key, weight in standing.items()))

    with inside(model, look):
        found = picture(ours, steps=2)
    # the concept's rows and the picture's, in each step
    assert seen == [True] * 4
    assert differ(found, picture(model, steps=2)) > 1e-3


@pytest.mark.parametrize("kind", ["dora", "lora"])
def test_two_threads_on_one_checkpoint_at_once(model, kind):
    """In the middle of every call, another thread calls the bare UNet, and gets what the bare UNet gives."""
    change = dora if kind == "dora" else dict
    ours = conducted(model, one_concept(model, change(random_lora(model, 7))))
    wanted = picture(ours, steps=2)
    # as many rows as the picture and its concept have together
    x, text = draw(4, 4, 8, 8, seed=1), prompt(model, 5)[0][0].repeat(4, 1, 1)

    def call():
        with torch.inference_mode():
            return model.model.diffusion_model(x, torch.full((4,), 500.0), context=text, transformer_options={})

    bare, found = call(), []

    def other():
        found.append(call())

    def meanwhile():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    with inside(model, meanwhile):
        together = picture(ours, steps=2)
    assert len(found) == (4 if kind == "dora" else 2) and all(torch.equal(one, bare) for one in found)
    assert torch.equal(together, wanted)


def test_an_error_in_the_middle_leaves_the_checkpoint(model, monkeypatch):
    before = {key: weight.clone() for key, weight in model.model.diffusion_model.state_dict().items()}
    ours = conducted(model, one_concept(model, dora(random_lora(model, 7))))
    whole = picture(ours)

    def failing(*args):
        raise RuntimeError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(conductor_run.ConceptMasks, "at", failing)
        with pytest.raises(RuntimeError, match="broken"):
            picture(ours)
    assert all(torch.equal(weight, before[key]) for key, weight in model.model.diffusion_model.state_dict().items())
    assert torch.equal(picture(ours), whole)


@pytest.mark.parametrize("kinds", [(dict, dict), (dora, dict), (dict, None)], ids=["LoRAs", "a DoRA", "one alone"])
def test_concepts_on_one_other_checkpoint_are_as_on_a_copy_each(model, kinds):
    """The host loads a checkpoint once, whatever the concepts on it have beyond it."""

    def drawn(*others):
        chain = ()
        for number, (one, kind) in enumerate(zip(others, kinds, strict=True)):
            taught = with_lora(one, kind(random_lora(one, number)), 1.0) if kind else one
            inputs = {"model": taught, "positive": prompt(model, 300 + number), "mask": strip(number, 2)}
            (chain,) = execute(AddConcept, concepts=chain, **inputs)
        ours = conducted(with_lora(model, random_lora(model, 9), 0.5), chain)
        return [picture(ours, steps=2), picture(ours, steps=2, seed=1)]

    other, copies = tiny_model(seed=1), (tiny_model(seed=1), tiny_model(seed=1))
    before = picture(other)
    for found, wanted in zip(drawn(other, other), drawn(*copies), strict=True):
        assert differ(found, wanted) < 1e-3
    assert torch.equal(picture(other), before)


def test_a_third_concept_on_one_other_checkpoint(model):
    """Of which two are equal but for their prompts."""
    other = tiny_model(seed=1)
    taught = [with_lora(other, random_lora(other, number), 1.0) for number in (1, 1, 2)]
    copies = [with_lora(tiny_model(seed=1), random_lora(other, number), 1.0) for number in (1, 1, 2)]
    found, wanted = (picture(conducted(model, chain_of(model, models)), steps=2) for models in (taught, copies))
    assert differ(found, wanted) < 1e-3


def chain_of(model, models):
    """A concept for each MODEL, beside each other."""
    chain = ()
    for number, one in enumerate(models):
        inputs = {"model": one, "positive": prompt(model, 300 + number), "mask": strip(number, len(models))}
        (chain,) = execute(AddConcept, concepts=chain, **inputs)
    return chain
