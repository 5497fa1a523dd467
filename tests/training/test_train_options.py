"""Training Options: which settings it changes, and what it refuses."""

import pytest
from support.models import execute

from pack.nodes.training.train_options_node import TrainingOptionsNode


def test_only_what_is_set_changes():
    (options,) = execute(TrainingOptionsNode, batch_size=2, norm_limit=0.0, flip="off", checkpoint="on")
    assert options.changes["batch_size"] == 2 and options.changes["norm_limit"] == 0.0
    assert options.changes["flip"] is False and options.changes["checkpoint"] == "on"
    assert not {"rank", "pull", "schedule", "context_prompts"} & set(options.changes)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", -5),
        ("accumulate", 0),
        ("t_max", 5000),
        ("placements", 0),
        ("vectors", -3),
        ("lr_words", float("nan")),
        ("cache_mb", 0),
    ],
)
def test_a_number_beyond_its_widget_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} is .*; enter a number from"):
        execute(TrainingOptionsNode, **{name: value})
