"""Runs of an effect benchmark add up."""

import json
import sys
from pathlib import Path

import pytest
import torch
from questions import singles

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
from answered import Answered
from effects import run

SETTING = {"steps": 12, "weights": "a"}
QUESTIONS = singles(6)


class Asked:
    """Two arms that count how often they are asked, and what is said of their pictures."""

    def __init__(self, names=("plain", "ours")):
        self.count = 0
        self.arms = {name: self.draw for name in names}

    def draw(self, question):
        self.count += 1
        return torch.full((1, 2, 2, 3), float(question.seed))

    def answers(self, questions, path, setting=SETTING):
        def said(question, picture, judge):
            return {"odd": bool(question.seed % 2), "how much": picture.mean().item()}

        return run(self.arms, questions, None, said, answered=Answered(path, "things", setting))[0]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "kept" / "answers.jsonl"


def test_a_second_run_goes_on(path):
    first = Asked()
    first.answers(QUESTIONS[:4], path)
    assert first.count == 8
    second = Asked()
    results = second.answers(QUESTIONS, path)
    assert second.count == 4
    assert results == Asked().answers(QUESTIONS, None)


def test_kinds_lie_beside_each_other(path):
    Asked().answers(QUESTIONS[:2], path)
    Answered(path, "pairs", SETTING).keep(QUESTIONS[2], {"plain": {"odd": False}})
    again = Asked()
    again.answers(QUESTIONS[:2], path)
    assert not again.count
    assert {json.loads(line)["kind"] for line in path.read_text().splitlines()[1:]} == {"things", "pairs"}


@pytest.mark.parametrize(
    "change", [{"names": ("plain", "theirs")}, {"setting": SETTING | {"weights": "b"}}], ids=["arms", "setting"]
)
def test_what_another_run_asked_does_not_count(change, path):
    Asked().answers(QUESTIONS[:2], path)
    other = Asked(change.get("names", ("plain", "ours")))
    other.answers(QUESTIONS[:2], path, change.get("setting", SETTING))
    assert other.count == 4
