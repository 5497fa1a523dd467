"""The ways of a step that gpu.py compares: each technique as its nodes put it on a MODEL, by how much it is given."""

import torch
from bench import family_flops, flops, identity_flops, image_flops
from bench.concept_flops import WIDTH, chain_of
from bench.gpu_steps import Way
from support.models import StubVAE, conditioning, execute
from support.references import draw

from pack.nodes.concept_conductor.concept_conductor_node import ConceptConductor

# In MiB: holds all that a bench keeps.
CACHE = 8192
TOKENS = 16


def references(bench, count):
    """MRSA as published: the picture that fills the bank, and one that finds all in it."""
    mask = flops.mask_of(flops.COVERAGE)

    def patched(seed):
        inputs = {"blocks": "published", "cache_mb": CACHE, "reference_seed": seed + 10 * count}
        return flops.patched(bench.model, bench.kind, bench.size, count, mask, **inputs)

    return {
        # another noise on the references each time: nothing is in the bank yet
        "first": Way(lambda turn: patched(100 * (turn + 2))),
        "cached": Way(lambda turn: patched(1)),
    }


def image_prompts(bench, count):
    """MIP-Adapter with pictures of so many tokens, and the gate."""
    ours = image_flops.with_images(bench.model, bench.kind, count, TOKENS, random=True)
    return {"MIP-Adapter": Way(lambda turn: ours)}


def concepts(bench, count, guided=False):
    """Concept Conductor with LoRAs, in a step with and without layout guidance."""
    chain = chain_of(bench.model, bench.kind, count)
    values = {"refine_start": 1.0, "refine_end": 0.0, "guidance_weight": 1e-6, "cache_mb": CACHE}
    if guided:
        # in all steps: the first also does what is done once in a run
        values |= {
            "guidance_end": 1.0,
            "layout_image": torch.rand(1, bench.size, bench.size, 3),
            "layout_positive": _text(bench, 90),
            "vae": StubVAE(bench.model, draw(1, 4, bench.size // 8, bench.size // 8)),
        }
    (ours,) = execute(ConceptConductor, model=bench.model, concepts=chain, **values)
    texts = _text(bench, 1), _text(bench, 2)
    name = "conducted and guided" if guided else "conducted"
    return {name: Way(lambda turn: ours, texts=texts)}


def guided_concepts(bench, count):
    """The same with layout guidance."""
    return concepts(bench, count, guided=True)


def relatives(bench, count):
    """The other techniques with references in self-attention, from the bank."""
    mask = flops.mask_of(flops.COVERAGE)
    found = {}
    for technique in ("dreamtuner", "reference_only"):
        inputs = {"references": count, "cache_mb": CACHE}
        ours = family_flops.referring(bench.model, bench.kind, bench.size, mask, technique, **inputs)
        found[technique] = Way(lambda turn, ours=ours: ours)
    return found


def people(bench, count):
    """FaceID, and on SDXL StoryMaker, with so many people."""
    names = ("faceid", "storymaker") if bench.kind == "sdxl" else ("faceid",)
    found = {}
    for technique in names:
        ours = identity_flops.with_people(bench.model, technique, bench.kind, count)
        found[technique] = Way(lambda turn, ours=ours: ours)
    return found


def _text(bench, seed):
    values = {"pooled_output": draw(1, 1280, seed=seed)} if bench.kind == "sdxl" else {}
    return conditioning(draw(1, flops.TEXT_TOKENS, WIDTH[bench.kind], seed=seed), **values)
