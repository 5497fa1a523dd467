"""MIP-Adapter costs what its method must cost: counted FLOPs of a step with CFG against the cheapest exact way."""

import gc
import weakref
from functools import lru_cache

import pytest
import torch
from bench.flops import costs, counted, hollow_model, text
from bench.image_flops import WORD, with_images, work
from support.image_prompts import adapter_of, with_pictures
from support.models import tiny_model
from support.references import picture
from support.thorough import few_rows_of

# FLOPs are the same on every host; true sizes take their time
LIMIT = 1.1
SIGMAS = [5.0, 2.0]
hollow = lru_cache(hollow_model)
SIZES = {"sd15": 512, "sdxl": 1024}
LAYERS = {"sd15": range(16), "sdxl": range(70)}


@pytest.fixture(scope="module", autouse=True)
def _let_the_models_go():
    yield
    hollow.cache_clear()


@pytest.mark.parametrize(
    ("kind", "tokens", "known"),
    [
        ("sd15", 4, [0.5, 0.7, 0.9, 1.2]),
        ("sd15", 16, [1.6, 2.4, 3.1, 3.9]),
        ("sdxl", 4, [4.2, 6.3, 8.4, 10.5]),
        ("sdxl", 16, [14.3, 21.4, 28.5, 35.7]),
    ],
)
def test_the_floor(kind, tokens, known):
    """It is the one that was found layer by layer (GFLOP per step)."""
    for references, gigaflops in enumerate(known, 1):
        _, floor = work(kind, SIZES[kind], references, tokens)
        if references == 1:
            # the known count holds a map for it, which is not needed
            floor += sum(2 * WORD * n * c for n, c in costs(kind, SIZES[kind], LAYERS[kind]).blocks)
        assert floor / 1e9 == pytest.approx(gigaflops, abs=0.06)


@pytest.mark.parametrize(
    ("kind", "references", "tokens", "merge"),
    # FLOPs are linear in references and tokens: each value of one meets each of the others'.
    few_rows_of(
        [
            ("sd15", 1, 4, "weighted"),
            ("sd15", 1, 16, "joint"),
            ("sd15", 2, 4, "joint"),
            ("sd15", 3, 16, "weighted"),
            ("sd15", 4, 4, "weighted"),
            ("sd15", 4, 16, "joint"),
            ("sdxl", 2, 4, "joint"),
            ("sdxl", 4, 16, "weighted"),
        ],
        ("sd15", 3, 16, "weighted"),
    ),
)
def test_step(kind, references, tokens, merge):
    size = SIZES[kind]
    plain = 2 * costs(kind, size, LAYERS[kind]).plain
    cheapest, floor = work(kind, size, references, tokens)
    model = with_images(hollow(kind), kind, references, tokens, merge=merge)
    first, second = (call.flops - plain for call in counted(model, kind, size, SIGMAS).calls)
    assert 0 < first <= LIMIT * cheapest
    assert 0 < second <= floor * (1 + 1e-6)
    assert cheapest < 0.003 * plain


@pytest.mark.slow
def test_off_costs_nothing():
    kind, size = "sd15", 512
    plain = 2 * costs(kind, size, LAYERS[kind]).plain
    model = with_images(hollow(kind), kind, 2, 4, end_percent=0.0)
    meter = counted(model, kind, size, SIGMAS)
    assert [call.flops for call in meter.calls] == [plain, plain]


@pytest.mark.slow
def test_cfg_1_pays_for_conditional_rows_only():
    kind, size = "sd15", 512
    plain = costs(kind, size, LAYERS[kind]).plain
    _, floor = work(kind, size, 2, 16)
    model = with_images(hollow(kind), kind, 2, 16)
    meter = counted(model, kind, size, SIGMAS, positive=text(kind, start_percent=1.0))
    # the positive is never active: only unconditional rows run
    assert {call.rows for call in meter.calls} == {1}
    assert all(0 < call.flops - plain < floor / 2 for call in meter.calls)


def test_matrices_are_not_kept():
    """What sampling needs of a file is the keys and values of its image tokens."""
    model = tiny_model("sd15")
    adapter = adapter_of("weights_sd15_ip_adapter")
    patched, kept = with_pictures(model, adapter=adapter), weakref.ref(adapter)
    del adapter
    gc.collect()
    assert kept() is None
    assert torch.isfinite(picture(patched)).all()
