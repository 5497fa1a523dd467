"""Steps and windows are decided from sigma."""

import math

import pytest
from support.models import tiny_model

from pack.nodes.host.when import Window, moment_of

SCHEDULE = [14.6, 6.0, 2.0, 0.5, 0.0]


@pytest.mark.parametrize(
    ("sigma", "step"),
    [
        (14.6, 0),
        (14.599999, 0),
        (15.5, 0),
        (10.0, 0),
        (6.0, 1),
        (6.000001, 1),
        (5.9, 1),
        (2.0, 2),
        (0.6, 2),
        (0.5, 3),
        (0.1, 3),
    ],
)
def test_a_midpoint_belongs_to_the_step_it_refines(sigma, step):
    moment = moment_of(sigma, SCHEDULE)
    assert (moment.step, moment.step_sigma) == (step, SCHEDULE[step])


@pytest.mark.parametrize(
    ("sigma", "step"),
    [
        (0.0, 0),
        (0.1, 0),
        (0.5, 1),
        (0.499999, 1),
        (1.9, 1),
        (2.0, 2),
        (5.0, 2),
        (6.0, 3),
        (14.5, 3),
        (14.6, 4),
        (15.5, 4),
    ],
)
def test_steps_of_rising_levels_begin_at_the_lower_one(sigma, step):
    rising = SCHEDULE[::-1]
    moment = moment_of(sigma, rising)
    assert (moment.sigma, moment.step, moment.step_sigma) == (sigma, step, rising[step])


def test_windows_are_of_noise_levels_where_these_rise():
    sampling = tiny_model().get_model_object("model_sampling")
    half = float(sampling.percent_to_sigma(0.5))
    rising = [0.0, half * 0.5, half, half * 2]
    acts = [Window(0.0, 0.5).holds(moment_of(sigma, rising), sampling) for sigma in rising]
    assert acts == [False, False, True, True]
    # a midpoint beyond the limit still belongs to a step that began outside
    assert not Window(0.0, 0.5).holds(moment_of(half * 0.99, rising), sampling)
    assert Window(0.5, 1.0).holds(moment_of(half * 1.5, rising), sampling)


def test_without_a_schedule_each_sigma_is_its_own_step():
    moment = moment_of(3.0, None)
    assert (moment.sigma, moment.step, moment.step_sigma) == (3.0, 0, 3.0)


def test_windows():
    sampling = tiny_model().get_model_object("model_sampling")
    half = float(sampling.percent_to_sigma(0.5))
    assert Window().holds(moment_of(1e9, None), sampling)
    assert Window().holds(moment_of(0.001, None), sampling)
    assert Window(0.0, 0.5).holds(moment_of(half, None), sampling)
    assert Window(0.5, 1.0).holds(moment_of(half, None), sampling)
    assert not Window(0.0, 0.5).holds(moment_of(half * 0.99, None), sampling)
    assert not Window(0.5, 1.0).holds(moment_of(half * 1.01, None), sampling)
    # a midpoint beyond the end still belongs to a step that began inside
    assert Window(0.0, 0.5).holds(moment_of(half * 0.9, [half, half * 0.5, 0.0]), sampling)


@pytest.mark.parametrize(
    ("start", "end", "says"), [(0.8, 0.2, "is after"), (math.nan, 1, "start_percent"), (0, 1.5, "end_percent")]
)
def test_windows_that_cannot_be(start, end, says):
    with pytest.raises(ValueError, match=says):
        Window(start, end)


@pytest.mark.parametrize(("start", "end"), [(0.8, 0.2), (math.nan, 1), (0, 1.5)])
def test_an_error_names_the_widgets_of_the_window(start, end):
    with pytest.raises(ValueError, match="control_(start|end)") as error:
        Window(start, end, ("control_start", "control_end"))
    assert "percent" not in str(error.value)
