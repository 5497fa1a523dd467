"""Layers that read one input take one product of it; what comes out is what patched weights give."""

import weakref

import pytest
import torch
from support.loras import Maker, loaded, unet_inputs
from support.models import tiny_model

import pack.nodes.row_adapters.layer_products as layer_products
from pack.nodes.row_adapters.batch_adapters import RowAdapters
from pack.nodes.row_adapters.concept_deltas import concept_deltas

BLOCK = "output_blocks.4.1.transformer_blocks.0"
Q, K, V, OUT = (f"{BLOCK}.attn1.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0"))
TEXT = tuple(f"{BLOCK}.attn2.{name}" for name in ("to_q", "to_k", "to_v"))


@pytest.fixture(scope="module")
def base():
    return tiny_model(seed=1)


def near(base, concepts, order, limit=1e-5):
    """Rows in one batch = each path's rows in a model with patched weights."""
    inputs = unet_inputs(len(order))
    adapters = RowAdapters(base, [concept_deltas(base, concept) for concept in concepts])
    unet = base.model.diffusion_model
    with adapters.active(unet, order):
        out = unet(*inputs)
    wanted = []
    for concept in [base, *concepts]:
        concept.patch_model()
        wanted.append(unet(*inputs))
        concept.unpatch_model()
    wanted = torch.stack([wanted[path][row] for row, path in enumerate(order)])
    assert (out - wanted).norm() / wanted.norm() < limit
    assert all((wanted[row] - unet(*inputs)[row]).abs().max() > 1e-3 for row, path in enumerate(order) if path)


@pytest.mark.parametrize("order", [[0, 1, 2], [0, 0, 1, 1, 2, 2], [1, 2, 0, 1], [2, 0]], ids=str)
def test_patched_weights(base, order):
    one = loaded(base, Maker(base, 1)("lora", (Q, K, V, OUT, *TEXT), rank=3, alpha=2))
    two = loaded(base, Maker(base, 2)("lora", (Q, K, V, OUT, *TEXT), rank=3), -0.8)
    near(base, [one, two], order)


def test_ranks_that_differ_by_layer(base):
    ranks = zip((Q, K, V), (2, 5, 3), strict=True)
    one = loaded(base, {k: t for layer, rank in ranks for k, t in Maker(base, rank)("lora", (layer,), rank).items()})
    near(base, [one], [0, 1, 1])


@pytest.fixture
def products(monkeypatch):
    """The shapes of the first factors of all products."""
    seen, lowered = [], layer_products.lowered
    monkeypatch.setattr(
        layer_products, "lowered", lambda x, down: seen.append(tuple(down.shape[:2])) or lowered(x, down)
    )
    return seen


def test_one_product_of_one_input(base, products):
    for layers, expected in (((Q, K, V), [(1, 12)]), (TEXT, [(1, 4), (1, 8)]), ((Q, K), [(1, 4)] * 2)):
        concept = loaded(base, Maker(base)("lora", layers, rank=4))
        adapters = RowAdapters(base, [concept_deltas(base, concept)])
        products.clear()
        with adapters.active(base.model.diffusion_model, [0, 1]):
            base.model.diffusion_model(*unet_inputs(2))
        assert products == expected, layers


def test_layers_that_another_pack_gives_different_inputs(base, products):
    """Each then has a product of its own; the tensor that the first one read is not taken for the others'."""
    concept = loaded(base, Maker(base)("lora", (Q, K, V), rank=4))
    adapters = RowAdapters(base, [concept_deltas(base, concept)])
    attention = base.model.diffusion_model.get_submodule(f"{BLOCK}.attn1")
    width = attention.to_q.in_features
    x, context = (torch.randn(2, 9, width, generator=torch.Generator().manual_seed(seed)) for seed in range(2))
    with adapters.active(base.model.diffusion_model, [0, 1]):
        found = attention(x, context)
    assert products == [(1, 12), (1, 4), (1, 4)]
    concept.patch_model()
    wanted = attention(x, context)[1]
    concept.unpatch_model()
    torch.testing.assert_close(found[1], wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[0], attention(x, context)[0])


def test_no_input_is_held_once_all_have_read_it(base):
    concept = loaded(base, Maker(base)("lora", (Q, K, V), rank=4))
    adapters = RowAdapters(base, [concept_deltas(base, concept)])
    unet = base.model.diffusion_model
    given, left = [], []
    handles = [
        unet.get_submodule(Q).register_forward_pre_hook(lambda layer, args: given.append(weakref.ref(args[0]))),
        unet.out.register_forward_pre_hook(lambda layer, args: left.extend(ref() for ref in given)),
    ]
    with adapters.active(unet, [0, 1]):
        unet(*unet_inputs(2))
    for handle in handles:
        handle.remove()
    assert left == [None]
