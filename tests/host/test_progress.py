"""A part of a run knows its place in the whole one; a whole one counts its steps."""

import comfy.samplers
import pytest
from support.models import tiny_model

from pack.nodes.host.progress import progress_of
from pack.nodes.host.when import percent_of, whole_timestep

SCHEDULERS = ("normal", "karras", "exponential", "sgm_uniform", "simple")


@pytest.fixture(scope="module")
def sampling():
    return tiny_model().get_model_object("model_sampling")


def levels(sampling, scheduler, steps):
    return comfy.samplers.calculate_sigmas(sampling, scheduler, steps).tolist()


def test_percents_are_the_hosts(sampling):
    for percent in (0.001, 0.1, 0.5, 0.9, 0.999):
        assert abs(percent_of(float(sampling.percent_to_sigma(percent)), sampling) - percent) < 1e-6
    assert percent_of(float(sampling.sigma_max), sampling) == 0 and percent_of(1e9, sampling) == 0
    assert percent_of(float(sampling.sigma_min), sampling) == 1 and percent_of(0.0, sampling) == 1


def test_timesteps_are_whole_numbers(sampling):
    for timestep in (0, 1, 500, 998, 999):
        assert whole_timestep(float(sampling.sigmas[timestep]), sampling) == timestep
    import comfy.model_sampling

    continuous = comfy.model_sampling.ModelSamplingContinuousEDM()
    assert [whole_timestep(sigma, continuous) for sigma in (120.0, 0.002)] == [999, 0]


@pytest.mark.parametrize("scheduler", [*SCHEDULERS, "ddim_uniform", "beta"])
def test_a_whole_run_counts_its_steps(sampling, scheduler):
    progress = progress_of(levels(sampling, scheduler, 12), sampling, True)
    assert (progress.start, progress.end, progress.before) == (0, 1, 0)
    assert progress.completed([3.0, 2.0]) == [3.0, 2.0]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("steps", [10, 12, 20, 30])
def test_a_part_is_where_it_is_in_the_whole_run(sampling, scheduler, steps):
    whole = levels(sampling, scheduler, steps)
    for start, end in ((0, steps // 2), (steps // 2, steps), (0, 3), (steps // 3, steps - 3)):
        progress = progress_of(whole[start : end + 1], sampling, not start)
        for i in range(end - start + 1):
            assert abs(progress.at(i / (end - start)) * steps - (start + i)) <= 1.01
        assert abs(progress.total - steps) <= 1 and abs(progress.before - start) <= 1


@pytest.mark.parametrize("scheduler", ["normal", "karras", "exponential"])
def test_a_part_that_ends_early_goes_on_to_the_levels_of_the_whole_run(sampling, scheduler):
    whole = levels(sampling, scheduler, 12)
    completed = progress_of(whole[:7], sampling, True).completed(whole[:7])
    assert completed == pytest.approx(whole[:-1], rel=1e-5)


def test_half_denoise_is_the_second_half(sampling):
    for scheduler in SCHEDULERS:
        progress = progress_of(levels(sampling, scheduler, 20)[-11:], sampling, False)
        assert 0.45 < progress.start < 0.6 and progress.end == 1


def test_noise_alone_from_the_middle_is_no_whole_run(sampling):
    """A schedule may begin a little below the largest level, but not in the middle."""
    whole = levels(sampling, "normal", 20)
    assert progress_of(whole[2:], sampling, True).start == 0
    assert progress_of(whole[2:], sampling, False).start > 0.05
    assert progress_of(whole[10:], sampling, True).start > 0.4
