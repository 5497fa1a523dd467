"""Concept Conductor costs what its method must cost: counted FLOPs of a step against the floor."""

import uuid
from contextlib import suppress
from functools import lru_cache
from types import SimpleNamespace

import comfy.ldm.modules.attention as attention
import comfy.model_management as mm
import pytest
import torch
from bench.flops import host_model
from comfy.ldm.modules.attention import BasicTransformerBlock
from concepts import strip
from loras import Maker, loaded
from subjects import draw
from tiny import conditioning, execute
from torch.utils.flop_counter import FlopCounterMode

from pack.nodes.concept_conductor import ConceptConductor
from pack.nodes.concepts import AddConcept
from pack.nodes.host import concept_conductor
from pack.nodes.host.attach import techniques_of
from pack.nodes.host.normal_tensors import differentiable
from pack.nodes.host.run import Run, call_of, step_of

# A step costs at most this many times the floor.
LIMIT = 1.05
SIDE, RANK, WIDTH = {"sd15": 64, "sdxl": 128}, {"sd15": 4, "sdxl": 32}, {"sd15": 768, "sdxl": 2048}
ENDS = ("to_q", "to_k", "to_v", "to_out.0")
META = torch.device("meta")


@pytest.fixture(autouse=True)
def _counted_attention(monkeypatch):
    monkeypatch.setattr(attention, "optimized_attention", attention.attention_pytorch)
    # what takes no memory, or little, must not depend on what the machine has left
    monkeypatch.setattr(mm, "get_free_memory", lambda *args, **kwargs: 1e18)


@lru_cache(maxsize=2)
def hollow(kind):
    return host_model(kind, device="meta")


def text(kind, rows, device, tokens=77):
    y = torch.zeros(rows, 2816, device=device) if kind == "sdxl" else None
    return torch.zeros(rows, tokens, WIDTH[kind], device=device), y


def chain_of(model, kind, count):
    names = [name for name, _ in model.model.diffusion_model.named_modules() if ".attn" in name and name.endswith(ENDS)]
    values = {"pooled_output": torch.zeros(1, 1280)} if kind == "sdxl" else {}
    chain = ()
    for number in range(count):
        (chain,) = execute(
            AddConcept,
            model=loaded(model, Maker(model, number)("lora", names, rank=RANK[kind])),
            positive=conditioning(draw(1, 77, WIDTH[kind], seed=number), **values),
            negative=conditioning(draw(1, 77, WIDTH[kind], seed=50 + number), **values),
            mask=strip(number, count),
            concepts=chain,
        )
    return chain


def conducting(model, kind, count, size, **inputs):
    """(technique, run) of a conducted MODEL, as in a run of the host that has just begun."""
    values = {"refine_start": 1.0, "refine_end": 0.0, "cache_mb": 0, **inputs}
    patched = execute(ConceptConductor, model=model, concepts=chain_of(model, kind, count), **values)[0]
    (technique,) = techniques_of(patched)
    guider = SimpleNamespace(conds={}, model_patcher=patched, inner_model=model.model)
    run = Run(guider, (1, 4, size, size))
    technique.begin(run)
    return technique, run


def options():
    return {
        "sigmas": torch.tensor([5.0]),
        "sample_sigmas": torch.tensor([5.0, 0.0]),
        "cond_or_uncond": [1, 0],
        "uuids": [uuid.uuid4(), uuid.uuid4()],
    }


@lru_cache(maxsize=2)
def parts(kind):
    """FLOPs of one row of the true UNet: all of it, up to the first text, up to the last fused attention."""
    unet = hollow(kind).model.diffusion_model
    seen = {}
    layers = [m for m in unet.modules() if isinstance(m, BasicTransformerBlock)]
    with FlopCounterMode(display=False) as counter:

        def note(name):
            return lambda *args: seen.update({name: counter.get_total_flops()})

        decoder = [m for m in unet.output_blocks.modules() if isinstance(m, BasicTransformerBlock)]
        handles = [
            layers[0].attn2.register_forward_pre_hook(note("first text")),
            decoder[-1].attn2.register_forward_hook(note("last fused")),
        ]
        context, y = text(kind, 1, META)
        unet(torch.zeros(1, 4, SIDE[kind], SIDE[kind], device=META), torch.zeros(1, device=META), context, y)
    for handle in handles:
        handle.remove()
    return {**seen, "all": counter.get_total_flops()}


def lora_flops(kind):
    """Of one row and all of its adapters: 0.285 and 2.59 GF per unit of rank."""
    return RANK[kind] * {"sd15": 0.285e9, "sdxl": 2.59e9}[kind]


def floor(kind, count):
    part = parts(kind)
    floor = 2 * part["all"] + 2 * count * (part["last fused"] + lora_flops(kind))
    if kind == "sd15":
        # without pooled text, the two rows of CFG are one up to the first text
        floor -= (1 + count) * part["first text"]
    return floor


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
    [("sd15", 1, False), ("sd15", 4, False), ("sd15", 3, True), ("sdxl", 4, False), ("sdxl", 3, True)],
)
def test_step(kind, count, foreign):
    """Together with the picture's rows, or (where another patch stands) ahead of them."""
    model = hollow(kind)
    technique, run = conducting(model, kind, count, SIDE[kind])
    unet, calls = model.model.diffusion_model, []

    def forward(x, t, context, y, control, options):
        calls.append(len(x))
        return unet._forward(x, t, context, y, control, options)

    x, t = torch.zeros(2, 4, SIDE[kind], SIDE[kind], device=META), torch.zeros(2, device=META)
    context, y = text(kind, 2, META)
    said = options()
    if foreign:
        said["patches"] = {"attn1_output_patch": [lambda n, options: n]}
    call = call_of(run, model.model, unet._forward, x, t, context, y, said)
    with FlopCounterMode(display=False) as counter:
        out = technique.around(call, forward)(x, t, context, y, None, said)
    assert out.shape == x.shape
    assert calls == [2 if foreign else 2 * (1 + count)]
    assert counter.get_total_flops() <= LIMIT * floor(kind, count)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_gradient(kind, count, monkeypatch):
    """A narrow UNet that really computes: each path's way to the keys and back, and no more."""
    model, size = narrow(kind), 16
    monkeypatch.setattr(concept_conductor, "layout_latent", lambda step, timestep: draw(1, 4, size, size))
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
