"""The nodes of people cost what their method must cost: counted FLOPs against the cheapest exact way."""

from functools import lru_cache

import pytest
from bench.flops import costs, counted, hollow_model
from bench.identity_flops import SIDES, attention_work, hollow_net, net_flops, with_people, words_work
from support.thorough import few_rows_of

# FLOPs are the same on every host; true sizes take their time
LIMIT = 1.02
SIGMAS = [5.0, 2.0]
hollow = lru_cache(hollow_model)
LAYERS = {"sd15": range(16), "sdxl": range(70)}


@pytest.fixture(scope="module", autouse=True)
def _let_the_models_go():
    yield
    hollow.cache_clear()


def plain(kind):
    return 2 * costs(kind, SIDES[kind], LAYERS[kind]).plain


def spent(technique, kind, people, **inputs):
    """FLOPs beside the plain ones of the first step and of a further one."""
    model = with_people(hollow(kind), technique, kind, people, **inputs)
    return [call.flops - plain(kind) for call in counted(model, kind, SIDES[kind], SIGMAS).calls]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("technique", "kind", "people", "pictures", "known"),
    [
        ("instantid", "sdxl", 1, 1, 13.4),
        ("instantid", "sdxl", 3, 1, 28.0),
        ("faceid", "sdxl", 1, 1, 3.4),
        ("faceid", "sdxl", 3, 1, 8.0),
        ("faceid", "sd15", 1, 1, 0.4),
        ("faceid", "sd15", 3, 1, 0.9),
        ("storymaker", "sdxl", 1, 1, 34.0),
        ("storymaker", "sdxl", 2, 1, 50.0),
        ("storymaker", "sdxl", 3, 1, 67.0),
    ],
)
def test_the_cheapest_way(technique, kind, people, pictures, known):
    """As it was found layer by layer (GFLOP of a step)."""
    assert attention_work(technique, kind, people, pictures) / 1e9 == pytest.approx(known, rel=0.1)


@pytest.mark.parametrize(
    ("technique", "kind", "people", "pictures"),
    few_rows_of(
        [
            ("faceid", "sd15", 1, 1),
            ("faceid", "sd15", 3, 1),
            ("portrait", "sd15", 1, 5),
            ("faceid", "sdxl", 3, 1),
            ("instantid", "sdxl", 1, 1),
            ("instantid", "sdxl", 3, 1),
            ("storymaker", "sdxl", 2, 1),
            ("storymaker", "sdxl", 3, 1),
        ],
        ("faceid", "sd15", 3, 1),
    ),
)
def test_step(technique, kind, people, pictures):
    cheapest = attention_work(technique, kind, people, pictures)
    first, second = spent(technique, kind, people, pictures=pictures)
    assert 0 < second <= LIMIT * cheapest
    assert second <= first <= LIMIT * (cheapest + words_work(technique, kind, people))
    assert cheapest < 0.006 * plain(kind)


@pytest.mark.slow
@pytest.mark.parametrize("people", [1, 2])
def test_identity_net(people):
    """A pass for each person, both rows in one; 44 % of a step each."""
    each = net_flops(2)
    assert each / 1e9 == pytest.approx(5976, rel=0.01) and each / plain("sdxl") == pytest.approx(0.44, abs=0.01)
    cheapest = attention_work("instantid", "sdxl", people) + people * each
    assert words_work("instantid", "sdxl", people) < 0.0002 * cheapest
    for flops in spent("instantid", "sdxl", people, control_net=hollow_net()):
        # of one person, both rows share the picture
        assert 0.98 * people * each < flops <= LIMIT * cheapest


@pytest.mark.slow
def test_all_people_in_one_pass():
    flops = spent("instantid", "sdxl", 3, control_net=hollow_net(), control_passes="together")
    assert max(flops) <= LIMIT * (net_flops(2) + attention_work("instantid", "sdxl", 3)) * 1.01


@pytest.mark.slow
@pytest.mark.parametrize("technique", ["instantid", "faceid", "storymaker"])
def test_off_costs_nothing(technique):
    kind = "sd15" if technique == "faceid" else "sdxl"
    inputs = {"control_net": hollow_net(), "control_end": 0.0} if technique == "instantid" else {}
    assert spent(technique, kind, 2, end_percent=0.0, **inputs) == [0, 0]
