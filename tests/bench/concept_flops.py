"""FLOPs of a Concept Conductor step, counted on UNets of true shape without data, and the floor below them."""

import uuid
from functools import lru_cache
from types import SimpleNamespace

import torch
from bench.flops import host_model
from comfy.ldm.modules.attention import BasicTransformerBlock
from support.concepts import strip
from support.loras import Maker, loaded
from support.models import conditioning, execute
from support.references import draw
from torch.utils.flop_counter import FlopCounterMode

from pack.nodes.concept_conductor.concept_conductor_node import ConceptConductor
from pack.nodes.concept_conductor.concepts_node import AddConcept
from pack.nodes.host.attach import techniques_of
from pack.nodes.host.run import Run, call_of

SIDE, RANK, WIDTH = {"sd15": 64, "sdxl": 128}, {"sd15": 4, "sdxl": 32}, {"sd15": 768, "sdxl": 2048}
ENDS = ("to_q", "to_k", "to_v", "to_out.0")
META = torch.device("meta")


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


def step_flops(kind, count, foreign=False):
    """(FLOPs of one call with both rows of CFG, rows of each pass with the image in it)."""
    model = hollow(kind)
    technique, run = conducting(model, kind, count, SIDE[kind])
    unet, passes = model.model.diffusion_model, []

    def forward(x, t, context, y, control, options):
        passes.append(len(x))
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
    return counter.get_total_flops(), passes
