"""Shares, differences and their intervals, against values worked out by hand."""

import pytest
from shares import difference, mean, mean_difference, share


def test_share_with_its_interval():
    p, low, high = share([True] * 90 + [False] * 10)
    # Wilson's interval of 90 of 100
    assert (p, low, high) == (0.9, pytest.approx(0.8256, abs=1e-3), pytest.approx(0.9448, abs=1e-3))
    assert share([True] * 10)[2] == pytest.approx(1) and share([True] * 10)[1] < 0.75


def test_difference_of_pairs():
    one = [True] * 30 + [False] * 70
    other = [True] * 20 + [False] * 75 + [True] * 5
    mean, low, high, p = difference(one, other)
    # 10 gained, 5 lost of 100
    assert mean == pytest.approx(0.05) and low < 0 < high
    assert p == pytest.approx(2 * sum((1, 15, 105, 455, 1365, 3003)) / 2**15)
    assert high - mean == pytest.approx(mean - low) == pytest.approx(1.96 * (15 - 0.25) ** 0.5 / 100, rel=1e-3)


def test_what_is_equal_does_not_differ():
    assert difference([True, False], [True, False]) == (0, 0, 0, 1.0)


def test_means_with_their_intervals():
    values = [1.0, 2.0, 3.0, 6.0]
    # a standard deviation of sqrt(14 / 3)
    half = 1.96 * (14 / 3) ** 0.5 / 2
    assert mean(values) == (3.0, pytest.approx(3 - half, rel=1e-3), pytest.approx(3 + half, rel=1e-3))
    middle, low, high, p = mean_difference(values, [0.0, 1.0, 2.0, 5.0])
    # the same difference each time: four of four to one side
    assert (middle, low, high) == (1.0, 1.0, 1.0) and p == 2 / 2**4
    assert mean_difference(values, values)[3] == 1
