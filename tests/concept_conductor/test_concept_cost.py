"""Concept Conductor costs what its method must cost: counted FLOPs of a step against the floor."""

from contextlib import suppress
from functools import lru_cache
from types import SimpleNamespace

import comfy.ldm.modules.attention as attention
import comfy.model_management as mm
import pytest
import torch
from bench.concept_flops import WIDTH, conducting, floor, hollow, options, parts, step_flops, text
from bench.flops import host_model
from comfy.ldm.modules.attention import BasicTransformerBlock
from support.models import conditioning
from support.references import draw
from support.thorough import few_rows_of
from torch.utils.flop_counter import FlopCounterMode

from pack.nodes.concept_conductor import conductor_run
from pack.nodes.host.gradients import differentiable
from pack.nodes.host.run import Run, step_of

# FLOPs are the same on every host; true sizes take their time
# A step costs at most this many times the floor.
LIMIT = 1.05


@pytest.fixture(autouse=True)
def _counted_attention(monkeypatch):
    monkeypatch.setattr(attention, "optimized_attention", attention.attention_pytorch)
    # what takes no memory, or little, must not depend on what the machine has left
    monkeypatch.setattr(mm, "get_free_memory", lambda *args, **kwargs: 1e18)


@pytest.fixture(scope="module", autouse=True)
def _let_the_models_go():
    yield
    hollow.cache_clear()
    narrow.cache_clear()


@pytest.mark.parametrize(
    ("kind", "whole", "floors"), [("sd15", 803.3e9, (4.66, 6.20, 7.75)), ("sdxl", 6761e9, (38.9, 51.6, 64.4))]
)
def test_the_floor(kind, whole, floors):
    """The UNets are the true ones, and the floor is the one that was found before anything was built."""
    assert parts(kind)["all"] == pytest.approx(whole, rel=1e-4)
    for count, expected in enumerate(floors, 2):
        assert floor(kind, count) / 1e12 == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize(
    ("kind", "count", "foreign"),
    few_rows_of(
        [("sd15", 1, False), ("sd15", 4, False), ("sd15", 3, True), ("sdxl", 4, False), ("sdxl", 3, True)],
        ("sd15", 4, False),
    ),
)
def test_step(kind, count, foreign):
    """Together with the picture's rows, or (where another patch stands) ahead of them."""
    flops, passes = step_flops(kind, count, foreign)
    assert passes == [2 if foreign else 2 * (1 + count)]
    assert flops <= LIMIT * floor(kind, count)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_gradient(kind, count, monkeypatch):
    """A narrow UNet that really computes: each path's way to the keys and back, and no more."""
    model, size = narrow(kind), 16
    monkeypatch.setattr(conductor_run.Conducting, "layout_latent", lambda self, step, timestep: draw(1, 4, size, size))
    technique, run = conducting(
        model,
        kind,
        count,
        size,
        layout_image=torch.rand(1, 8 * size, 8 * size, 3),
        layout_positive=conditioning(draw(1, 77, WIDTH[kind]), pooled_output=torch.zeros(1, 1280)),
        vae=SimpleNamespace(encode=lambda pixels: draw(1, 4, size, size)),
        cache_mb=64,
    )
    context, y = text(kind, 1, "cpu")
    conds = {"c_crossattn": SimpleNamespace(cond=context)} | ({"y": SimpleNamespace(cond=y)} if kind == "sdxl" else {})
    run.guider.conds = {"positive": [{"model_conds": conds, "cross_attn": context}]}
    x, one = draw(1, 4, size, size), one_path(model, kind, size)

    def counted():
        technique_run = Run(run.guider, (1, 4, size, size))
        technique.begin(technique_run)
        step = step_of(technique_run, model.model, x, torch.tensor([5.0]), options())
        with FlopCounterMode(display=False) as counter:
            assert technique.shift(step) is not None
        return counter.get_total_flops()

    first, further = counted(), counted()
    # the layout picture's keys are computed once and kept
    assert first >= further
    # adapters weigh more in a narrow UNet; they are counted apart
    assert further <= LIMIT * (1 + count) * one + 3 * count * adapters_flops(technique, size, kind, model)


@lru_cache(maxsize=2)
def narrow(kind):
    model = host_model(kind, width=32)
    for name, weight in model.model.diffusion_model.named_parameters():
        if weight.ndim > 1:
            weight.normal_(std=weight[0].numel() ** -0.5)
        else:
            weight.fill_(float(name.endswith("weight")))
    return model


class Reached(Exception):  # noqa: N818
    pass


def one_path(model, kind, size):
    """FLOPs of one row's way to the guidance layer's keys and back, with torch alone."""
    unet = model.model.diffusion_model
    block = unet.output_blocks[{"sd15": 3, "sdxl": 1}[kind]]
    layers = [m for m in block.modules() if isinstance(m, BasicTransformerBlock)]
    layer, keys = layers[(len(layers) - 1) // 2].attn1, []

    def reached(module, args, out):
        keys.append(out)
        raise Reached

    handle = layer.to_k.register_forward_hook(reached)
    with FlopCounterMode(display=False) as counter, differentiable():
        z = draw(1, 4, size, size).clone().requires_grad_(True)
        context, y = text(kind, 1, "cpu")
        with suppress(Reached):
            # the counter's own hooks want no leaf
            unet(z * 1, torch.ones(1), context, y)
        torch.autograd.grad(keys[0].sum(), z)
    handle.remove()
    return counter.get_total_flops()


def adapters_flops(technique, size, kind, model):
    """Of one row's adapters in a whole forward."""
    unet = model.model.diffusion_model
    x, t = draw(1, 4, size, size), torch.ones(1)

    def counted(path):
        with FlopCounterMode(display=False) as counter, technique.adapters.active(unet, [path]):
            unet(x, t, *text(kind, 1, "cpu"))
        return counter.get_total_flops()

    return counted(1) - counted(0)
