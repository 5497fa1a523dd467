"""The settings of each method, and what a user's own change of them."""

import pytest

from pack.nodes.training.methods import settings_of


def test_a_rate_that_is_entered_is_meant_for_the_whole_batch():
    assert settings_of("word", {}).pace(10).lr_words == pytest.approx(4 * 5e-4)
    assert settings_of("word", {"batch_size": 2}).pace(10).lr_words == pytest.approx(2 * 5e-4)
    assert settings_of("word", {"lr_words": 1e-3}).pace(10).lr_words == 1e-3


@pytest.mark.parametrize(("family", "options", "rank"), [("SD1.5", {}, 4), ("SDXL", {}, 32), ("SDXL", {"rank": 8}, 8)])
def test_the_rank_of_an_edlora(family, options, rank):
    assert settings_of("ED-LoRA", options, family=family).rank == rank
    assert settings_of("LoRA", {}, family=family).rank == 4


def test_the_first_phase_keeps_its_share():
    assert settings_of("scene", {}, 80).words_first == 40
    assert settings_of("scene", {"words_first": 7}, 80).words_first == 7
