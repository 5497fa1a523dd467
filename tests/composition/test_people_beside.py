"""The nodes of people beside the other techniques: whose rows they serve, and on several devices."""

from types import SimpleNamespace

import pytest
import torch
from support.compare import differ, relative
from support.concepts import conducted
from support.controlnets import controlnet, identity_net
from support.devices import PLACES, at, model_with_factory, split, with_engine
from support.identity import with_faceid, with_instantid, with_storymaker
from support.models import sample, tiny_model
from support.references import picture, prompt, with_references
from support.thorough import few_of

from nodes import ControlNetApplyAdvanced


@pytest.fixture(scope="module")
def sdxl():
    return tiny_model("sdxl")


@pytest.fixture
def watched(monkeypatch):
    """An IdentityNet whose calls are noted."""
    net, calls = identity_net(), []
    original = net.control_model.forward

    def forward(**given):
        calls.append(SimpleNamespace(**given))
        return original(**given)

    monkeypatch.setattr(net.control_model, "forward", forward)
    return SimpleNamespace(net=net, calls=calls)


def test_reference_passes_have_no_people(sdxl, watched, monkeypatch):
    """In either order: the sampler's rows alone are seen by IdentityNet."""
    one = with_references(with_instantid(sdxl, monkeypatch, control_net=watched.net))
    other = with_instantid(with_references(sdxl), monkeypatch, control_net=watched.net)
    first = picture(one, steps=2)
    assert [len(call.x) for call in watched.calls] == [4, 4]
    assert differ(first, picture(other, steps=2)) < 1e-4


def test_concepts_take_over_what_stands(sdxl, watched, monkeypatch):
    """IdentityNet sees the picture's own rows; Concept Conductor's further rows get its residuals as any control."""
    one = conducted(with_instantid(sdxl, monkeypatch, control_net=watched.net))
    out = picture(one, steps=2)
    assert torch.isfinite(out).all()
    assert [len(call.x) for call in watched.calls] == [4, 4]
    other = with_instantid(conducted(sdxl), monkeypatch, control_net=watched.net)
    assert differ(out, picture(other, steps=2)) < 1e-3


@pytest.mark.parametrize("first", few_of([with_faceid, with_storymaker], with_storymaker))
def test_two_nodes_of_people_add_up(sdxl, monkeypatch, first):
    model = first(sdxl, monkeypatch, lora_strength=0.0)
    both = with_instantid(model, monkeypatch, control_net=None)
    turned = first(with_instantid(sdxl, monkeypatch, control_net=None), monkeypatch, lora_strength=0.0)
    assert differ(picture(both), picture(turned)) < 1e-4
    assert differ(picture(both), picture(model)) > 1e-3


def test_beside_a_random_controlnet_in_any_order(sdxl, monkeypatch):
    """A net on one side of the prompt only: the other side has IdentityNet alone."""
    net = controlnet(sdxl)
    model = with_instantid(sdxl, monkeypatch)
    positive, negative = prompt(sdxl, 100), prompt(sdxl, 200)
    both = ControlNetApplyAdvanced().apply_controlnet(positive, negative, net, torch.rand(1, 64, 64, 3), 0.5, 0.0, 1.0)
    out = sample(model, *both, steps=2)
    one_side = sample(model, both[0], negative, steps=2)
    assert torch.isfinite(out).all() and torch.isfinite(one_side).all() and differ(out, one_side) > 1e-4
    assert differ(sample(model, positive, negative, steps=2), picture(model, steps=2)) == 0


@with_engine
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", few_of(["faceid", "instantid", "storymaker"], "faceid"))
def test_on_several_devices(monkeypatch, place, name):
    """As on one; IdentityNet computes in single precision."""
    make = {"faceid": with_faceid, "instantid": with_instantid, "storymaker": with_storymaker}[name]
    inputs = {"lora_strength": 0.0} if name != "instantid" else {}
    with at(place, monkeypatch):
        model = model_with_factory("sdxl" if name != "faceid" else "sd15", dtype=torch.float64)
        texts = prompt(model, 100) + prompt(model, 101), prompt(model, 200)
        patched = make(model, monkeypatch, **inputs)
        wanted = sample(patched, *texts, steps=2)
        assert relative(sample(model, *texts, steps=2), wanted) > 0.01
        assert relative(sample(split(patched), *texts, steps=2), wanted) < (1e-3 if name == "instantid" else 1e-6)
