"""Layers whose weights come and go: their gradients, and layers like them with weights of their own."""

import comfy.ops
import pytest
import torch
from support.compare import relative
from support.models import tiny_model
from support.references import draw

from pack.nodes.host.calls import forward_of
from pack.nodes.host.fetched_weights import Fetching, carrying, is_fetched
from pack.nodes.host.gradients import differentiable
from pack.nodes.host.packed_weights import unpacking

CPU = torch.device("cpu")


@pytest.fixture
def paged(monkeypatch):
    """A UNet whose weights the host fetches into two buffers in turn, which are others' as soon as a layer is done."""
    with torch.inference_mode():
        unet = tiny_model("sd15").model.diffusion_model
        buffers, turns = [torch.zeros(1 << 20), torch.zeros(1 << 20)], []

    def fetched(layer, x=None, *args, offloadable=False, **kwargs):
        turns.append(layer)
        found, start, buffer = [], 0, buffers[len(turns) % 2]
        for kind in ("weight", "bias"):
            tensor = getattr(layer, kind, None)
            if tensor is not None and hasattr(layer, "_v"):
                with torch.inference_mode():
                    place = buffer[start : start + tensor.numel()].view(tensor.shape)
                    place.copy_(tensor)
                start, tensor = start + tensor.numel(), place
            found.append(tensor)
        return (*found, None) if offloadable else tuple(found)

    monkeypatch.setattr(comfy.ops, "cast_bias_weight", fetched)
    monkeypatch.setattr(comfy.ops, "uncast_bias_weight", lambda *args: None)

    def page():
        for layer in unet.modules():
            if layer._parameters.get("weight") is not None:
                layer._v, layer.comfy_cast_weights = object(), True
        return unet

    return unet, page


def gradient(unet):
    with torch.inference_mode():
        x, text = draw(1, 4, 8, 8, seed=1), draw(1, 7, 32, seed=2)
        with differentiable():
            leaf = x.clone().requires_grad_(True)
            out = forward_of(unet)(leaf, torch.tensor([500.0]), text, None, None, {})
            return torch.autograd.grad(out.square().sum(), leaf)[0]


def test_the_way_back_has_the_weights_of_the_way_there(paged):
    unet, page = paged
    expected = gradient(unet)
    page()
    wrong = None
    try:
        wrong = gradient(unet)
    except RuntimeError as error:
        assert "modified by an inplace operation" in str(error)
    assert wrong is None or relative(wrong, expected) > 1e-2
    assert relative(gradient(unpacking(unet, CPU)), expected) < 1e-5


def test_loaded_layers_are_left_as_they_are():
    unet = tiny_model("sd15").model.diffusion_model
    assert unpacking(unet, CPU) is unet
    layer = comfy.ops.manual_cast.Linear(3, 2)
    assert not is_fetched(layer, CPU) and is_fetched(layer, torch.device("meta"))
    assert not is_fetched(torch.nn.Linear(3, 2), torch.device("meta"))
    layer._v = object()
    assert is_fetched(layer, CPU) and isinstance(unpacking(layer, CPU), Fetching)


def test_a_layer_with_weights_of_its_own_is_nobodys_page():
    """What the host patches as it uses a layer is done once to what is not its own, and not to what is."""
    layer = comfy.ops.manual_cast.Linear(3, 2)
    layer.weight.data, layer.bias.data = torch.ones(2, 3), torch.ones(2)
    layer._v, layer._v_signature, layer._pins = object(), 1, {}
    layer.weight_lowvram_function, layer.bias_lowvram_function = torch.neg, lambda bias: bias + 1
    own = carrying(layer, {"weight": torch.full((2, 3), 2.0)})
    assert torch.equal(own(torch.ones(1, 3)), torch.full((1, 2), 8.0))
    assert not is_fetched(own, CPU) and is_fetched(layer, CPU)
    assert layer.weight_lowvram_function is torch.neg and not layer.bias_function
