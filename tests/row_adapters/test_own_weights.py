"""Concepts that run with weights of their own: right, and the loaded checkpoint is never touched."""

import threading

import pytest
import torch
from support.concepts import conducted, random_lora, strip, with_lora
from support.models import execute, sample, tiny_model
from support.references import differ, prompt

from pack.nodes.concept_conductor import conductor_run
from pack.nodes.concept_conductor.concepts_node import AddConcept
from pack.nodes.row_adapters.own_weights import with_weights


@pytest.fixture
def model():
    return tiny_model("sd15")


def dora(file):
    """The LoRA file with a magnitude for each layer."""
    scales = {
        name.replace(".lora_up.weight", ".dora_scale"): torch.full((len(up), 1), 0.5)
        for name, up in file.items()
        if name.endswith(".lora_up.weight")
    }
    return {**file, **scales}


def one_concept(model, file):
    """A chain of one concept on the left half."""
    inputs = {"positive": prompt(model, 300), "mask": strip(0, 2)}
    return execute(AddConcept, model=with_lora(model, file, 1.0), **inputs)[0]


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


def test_while_a_concept_runs_the_checkpoint_stays_as_it_is(model, monkeypatch):
    """Looked at from inside the concept's own pass, not only afterwards."""
    before = {key: weight.clone() for key, weight in model.model.diffusion_model.state_dict().items()}
    ours = conducted(model, one_concept(model, dora(random_lora(model, 7))))
    seen, real = [], conductor_run.ConceptMasks.at

    def look(*args):
        standing = model.model.diffusion_model.state_dict()
        seen.append(all(torch.equal(weight, before[key]) for key, weight in standing.items()))
        return real(*args)

    monkeypatch.setattr(conductor_run.ConceptMasks, "at", look)
    assert differ(picture(ours, steps=2), picture(model, steps=2)) > 1e-3
    assert seen and all(seen)


@pytest.mark.parametrize("kind", ["dora", "lora"])
def test_two_samplings_of_one_checkpoint_at_once(model, kind, monkeypatch):
    """Whenever a concept's rows run, another thread samples the bare checkpoint, and gets the bare picture."""
    change = dora if kind == "dora" else dict
    ours = conducted(model, one_concept(model, change(random_lora(model, 7))))
    bare, wanted = picture(model, steps=1), picture(ours, steps=2)
    found, real = [], conductor_run.ConceptMasks.at

    def meanwhile(*args):
        def other():
            with torch.inference_mode():
                found.append(picture(model.clone(), steps=1))

        if len(found) < 3:
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
        return real(*args)

    monkeypatch.setattr(conductor_run.ConceptMasks, "at", meanwhile)
    together = picture(ours, steps=2)
    assert len(found) == 3 and all(torch.equal(one, bare) for one in found)
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
