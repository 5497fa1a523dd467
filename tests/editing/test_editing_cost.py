"""VisCtrl and PILOT cost what their methods must: counted FLOPs against the floor."""

import pytest
from bench.editing_flops import of_the_hole, pilot, there_and_back, visctrl

pytestmark = pytest.mark.slow

LIMIT = 1.05


def test_visctrl_runs_both_pictures_there_and_one_back():
    passes = visctrl("sd15", 128, 64, iterations=1, steps=2, start_step=0)
    floor = passes.floor(2, 0)
    assert 0.99 * floor < sum(passes.calls) <= LIMIT * floor


def test_an_operation_of_pilot_is_one_row_there_and_back():
    operation = pilot("sd15", 128, 32)
    assert operation.counted == operation.row + operation.back + operation.hole


@pytest.mark.slow
def test_a_hole_adds_less_than_a_hundredth():
    assert of_the_hole("sd15", 512) < 0.01 * sum(there_and_back("sd15", 512))
