"""A step of each kind costs what its networks must: counted FLOPs on SD1.5 of true size."""

import pytest
from bench.training_flops import floor_of, step_cost

pytestmark = pytest.mark.slow

LIMIT = 1.03


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("method", ["word", "LoRA", "ED-LoRA"])
def test_a_step_costs_what_it_must(method, checkpoint):
    cost = step_cost("sd15", method, checkpoint)
    wanted = floor_of("sd15", method, checkpoint, cost.pictures)
    assert 0.97 * wanted < cost.flops <= LIMIT * wanted


def test_checkpoints_keep_a_tenth():
    whole, few = (step_cost("sd15", "word", checkpoint) for checkpoint in (False, True))
    assert few.kept < whole.kept / 10 and few.flops < 1.5 * whole.flops
