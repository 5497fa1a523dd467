"""Checkpoints with packed weights give what they give unpacked, whatever a concept or guidance needs of them."""

import comfy.model_management as mm
import pytest
import torch
from support.compare import differ
from support.concepts import conducted, dora, random_lora, strip, with_lora
from support.models import execute, tiny_model
from support.packed import SealedConv, packed_twins, scaled_fp8, sealed
from support.references import picture, prompt, with_references

from pack.nodes.concept_conductor.concepts_node import AddConcept
from pack.nodes.host import messages
from pack.nodes.host.packed_weights import unpacked, unpacking

pytestmark = pytest.mark.slow

KINDS = {"scaled fp8": scaled_fp8, "a class of its own": sealed}
SAME = 3e-4


@pytest.fixture(params=KINDS)
def twins(request):
    """(packed, unpacked)"""
    return packed_twins(lambda: tiny_model("sd15"), KINDS[request.param])


def concept_of(model, change=dict):
    """A chain of one concept, of a LoRA that is the same for both twins."""
    # weak: strong ones amplify rounding to another picture
    file = change(random_lora(tiny_model("sd15"), 7, scale=0.05))
    inputs = {"positive": prompt(model, 300), "mask": strip(0, 2)}
    return execute(AddConcept, model=with_lora(model, file, 1.0), **inputs)[0]


def guided(model, change=dict):
    return conducted(model, concept_of(model, change), layout=True, guidance_weight=5e-5, custom_factor=0.5)


TECHNIQUES = {
    "LoRA": lambda model: conducted(model, concept_of(model)),
    "DoRA": lambda model: conducted(model, concept_of(model, dora)),
    "layout guidance": guided,
    "layout guidance of a DoRA": lambda model: guided(model, dora),
    "references": with_references,
}


@pytest.mark.parametrize("what", TECHNIQUES)
def test_as_unpacked(twins, what):
    packed, plain = twins
    wanted = picture(TECHNIQUES[what](plain), steps=1)
    assert differ(picture(packed, steps=1), picture(plain, steps=1)) < SAME
    less = conducted(plain, concept_of(plain, dora if "DoRA" in what else dict)) if "guidance" in what else plain
    change = differ(wanted, picture(less, steps=1))
    assert change > 5 * SAME
    # guidance amplifies rounding (0.5 % of its change where a host applies the scale of fp8 beside the product)
    bound = max(SAME, change / 50) if "guidance" in what else SAME
    assert differ(picture(TECHNIQUES[what](packed), steps=1), wanted) < bound


def test_nothing_is_unpacked_for_good(twins):
    packed, _ = twins
    before = {name: type(layer) for name, layer in packed.model.diffusion_model.named_modules()}
    first = picture(packed, steps=1)
    picture(guided(packed, dora), steps=1)
    assert {name: type(layer) for name, layer in packed.model.diffusion_model.named_modules()} == before
    assert torch.equal(picture(packed, steps=1), first)


def test_weights_that_cannot_be_read_are_said_before_sampling(monkeypatch):
    """A convolution tells nobody its values; only a linear layer can be asked what it makes of each input."""
    said = []
    monkeypatch.setattr(messages, "_show", said.append)
    chosen = lambda name, layer: name == "input_blocks.3.0.op"  # noqa: E731
    packed, _ = packed_twins(lambda: tiny_model("sd15"), sealed, chosen)
    assert isinstance(packed.model.diffusion_model.input_blocks[3][0].op, SealedConv)
    ran = []
    handle = packed.model.diffusion_model.register_forward_pre_hook(lambda *_: ran.append(1))
    with pytest.raises(ValueError, match="layout guidance needs the weights themselves.*Sealed"):
        picture(guided(packed))
    handle.remove()
    assert not ran and len([one for one in said if "Sealed" in one]) == 1
    # what needs no weights runs
    assert torch.isfinite(picture(conducted(packed, concept_of(packed)), steps=1)).all()


def test_too_little_memory_is_not_taken_for_weights_that_cannot_be_read():
    layer, _ = sealed(torch.nn.Linear(4, 4))

    def too_large(weight, inplace):
        raise mm.OOM_EXCEPTION("out of memory")

    layer.convert_weight = too_large
    with pytest.raises(mm.OOM_EXCEPTION, match="out of memory"):
        unpacked(layer, "weight", layer.weight)


def test_patches_of_a_partly_loaded_model_reach_weight_and_bias():
    plain = torch.nn.Linear(2, 2)
    plain.weight.data, plain.bias.data = torch.eye(2), torch.zeros(2)
    layer, _ = sealed(plain)
    layer.weight_function, layer.bias_function = [lambda weight: 2 * weight], [lambda bias: bias + 5]
    assert unpacking(layer)(torch.tensor([[1.0, 3.0]])).tolist() == [[7.0, 11.0]]
