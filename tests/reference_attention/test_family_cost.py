"""DreamTuner, Reference Only and Reference Guidance cost what their methods must: counted FLOPs against the floor."""

from functools import lru_cache

import pytest
import torch
from bench.family_flops import floor, guided, prompt, referring, watched_inside
from bench.flops import COVERAGE, costs, counted, hollow_model, mask_of

from pack.nodes.reference_attention import reference_guidance

# FLOPs are the same on every host; true sizes take their time
pytestmark = pytest.mark.slow

LIMIT = 1.03
EARLY = 5.0
SD15, SDXL = ("sd15", 512, range(16)), ("sdxl", 1024, range(70))

hollow = lru_cache(hollow_model)


@pytest.fixture(scope="module", autouse=True)
def _let_the_models_go():
    with watched_inside():
        yield
    hollow.cache_clear()


# (technique, settings, floors per reference with the whole picture and with a mask of 0.224, in plain steps)
CASES = {
    "DreamTuner, both texts": ("dreamtuner", {"reference_prompt": "own"}, (2.10, 1.99)),
    "Reference Only, fidelity 1": ("reference_only", {"style_fidelity": 1.0}, (1.55, 1.49)),
    "Reference Only, fidelity 0.5": ("reference_only", {"style_fidelity": 0.5}, (2.18, 2.06)),
}


@pytest.mark.parametrize("what", CASES)
@pytest.mark.parametrize("coverage", [1, COVERAGE])
def test_step_of_sd15(what, coverage):
    technique, settings, floors = CASES[what]
    kind, size, blocks = SD15
    mask, cost = mask_of(coverage), costs(kind, size, blocks)
    wanted = floor(cost, mask, technique, **settings)
    assert wanted / (2 * cost.plain) == pytest.approx(floors[coverage != 1], abs=0.011)
    meter = counted(
        referring(hollow(kind), kind, size, mask, technique, **settings), kind, size, [EARLY], positive=prompt(kind)
    )
    assert 0.99 * wanted < meter.calls[0].useful <= LIMIT * wanted


@pytest.mark.parametrize("coverage", [1, COVERAGE])
def test_step_of_sdxl(coverage):
    kind, size, blocks = SDXL
    mask, cost = mask_of(coverage), costs(kind, size, blocks)
    meter = counted(referring(hollow(kind), kind, size, mask, "dreamtuner"), kind, size, [EARLY], positive=prompt(kind))
    assert meter.calls[0].useful <= LIMIT * floor(cost, mask, "dreamtuner")


def test_a_step_that_the_references_guide_costs_no_reference_of_the_negative(monkeypatch):
    kind, size, blocks = SD15
    mask, cost = mask_of(COVERAGE), costs(kind, size, blocks)
    patched = guided(referring(hollow(kind), kind, size, mask, "dreamtuner"))
    for draw, both in ((-9.0, False), (9.0, True)):
        monkeypatch.setattr(reference_guidance, "seeded_noise", lambda name, shape, draw=draw: torch.full(shape, draw))
        meter = counted(patched, kind, size, [EARLY], positive=prompt(kind))
        assert meter.calls[0].useful <= LIMIT * floor(cost, mask, "dreamtuner", both=both)


def test_adain_alone_costs_its_reference_pass_up_to_its_last_place():
    kind, size, _ = SD15
    cost = costs(kind, size, range(16))
    model = referring(hollow(kind), kind, size, None, "reference_only", attention=0.0, style_fidelity=1.0)
    meter = counted(model, kind, size, [EARLY], positive=prompt(kind))
    # 575 GFLOP to output block 8, counted layer by layer
    assert meter.calls[0].flops == pytest.approx(2 * cost.plain + 575e9, rel=0.003)
