"""What is told of pictures whose things and hues are known."""

import math

import judge
import pytest
import torch
from judge import Verdict
from looks import chroma, turned
from questions import Question
from sight import FEWEST, answers, hue_in, hues_of, resultant, sightings
from things import COLOURS, WORDS

BLUE, GREEN = 4 * math.pi / 3, 2 * math.pi / 3


def picture(*squares):
    """Grey (128, 128, 3) with squares of (column, hue) of 40 pixels."""
    made = torch.full((128, 128, 3), 0.5)
    for column, hue in squares:
        red = torch.tensor([0.9, 0.3, 0.3, 1.0])[None, :, None, None].expand(1, 4, 40, 40)
        made[40:80, column : column + 40] = turned(red, torch.tensor([hue]))[0, :3].movedim(0, -1)
    return made


class Eye:
    """A judge that is sure of what it is told: {word: column} of things that fill squares of picture()."""

    def __init__(self, colour="gray", **columns):
        labels = torch.zeros(1, 16, 16, dtype=torch.long)
        for word, column in columns.items():
            labels[0, 5:10, column // 8 : column // 8 + 5] = 1 + WORDS.index(word)
        cells = torch.nn.functional.one_hot(labels, 1 + len(WORDS)).movedim(-1, 1).float()
        self.verdict = Verdict((cells * 20).log_softmax(1), torch.tensor([list(COLOURS).index(colour)]))

    def look(self, pictures):
        return self.verdict


def near(one, other):
    return one == pytest.approx(other % (2 * math.pi), abs=0.1) or one + 2 * math.pi == pytest.approx(other, abs=0.1)


def test_what_stands_there_has_a_hue_and_the_background_has_no_say():
    made = picture((8, BLUE)) + torch.tensor([0.1, 0.0, 0.0])
    assert abs(chroma(made.mean((0, 1)))) > 0.05
    assert near(hue_in(picture((8, BLUE))), BLUE)
    left = torch.arange(128).expand(128, 128) < 64
    both = picture((8, BLUE), (72, GREEN))
    assert near(hue_in(both, left), BLUE) and near(hue_in(both, ~left), GREEN)


def test_nothing_has_no_hue():
    made = torch.full((128, 128, 3), 0.5)
    made[40, 40 : 40 + FEWEST - 1] = torch.tensor([1.0, 0, 0])
    assert math.isnan(hue_in(made))


def test_each_thing_is_found_with_its_place_and_hue():
    eye = Eye(dog=8, cat=72)
    found = sightings(picture((8, BLUE), (72, GREEN)), eye.verdict)
    assert set(found) == {"dog", "cat"}
    assert near(found["dog"].hue, BLUE) and near(found["cat"].hue, GREEN)
    assert found["dog"].place[0] < 0.5 < found["cat"].place[0]


def test_what_is_not_found_counts_where_it_was_asked_for():
    both = picture((8, BLUE), (72, GREEN))
    first, second = hues_of(("dog", "cat"), both, {})
    assert near(first, BLUE) and near(second, GREEN)
    # found on the other side
    first, second = hues_of(("cat", "dog"), both, sightings(both, Eye(dog=8, cat=72).verdict))
    assert near(first, GREEN) and near(second, BLUE)


@pytest.mark.parametrize(
    ("eye", "hues", "wrong"),
    [
        (Eye(dog=8, cat=72), (BLUE, GREEN), set()),
        (Eye(dog=8, cat=72), (GREEN, BLUE), {"looks"}),
        (Eye(dog=8, cat=72), (BLUE + 0.4, GREEN - 0.4), set()),
        (Eye(dog=8, cat=72), (BLUE, GREEN + 0.7), {"looks"}),
        (Eye(dog=8), (BLUE, GREEN), {"things", "in their places"}),
        (Eye("red", dog=8, cat=72), (BLUE, GREEN), {"background"}),
        (Eye(dog=72, cat=8), (GREEN, BLUE), {"in their places"}),
    ],
)
def test_a_picture_is_right_if_all_of_it_is(eye, hues, wrong):
    said = answers(Question(("dog", "cat"), "gray", 0), picture((8, BLUE), (72, GREEN))[None], eye, hues)
    assert {what for what, so in said.items() if not so} - {"all of it"} == wrong
    assert said["all of it"] == (not wrong - {"in their places"})


def test_one_thing_has_no_place():
    said = answers(Question(("dog",), "gray", 0), picture((40, BLUE))[None], Eye(dog=40), [BLUE])
    assert said == {"things": True, "looks": True, "background": True, "all of it": True}


def test_an_empty_picture_has_nothing_right():
    flat = torch.full((1, 128, 128, 3), 0.5)
    said = answers(Question(("dog",), "gray", 0), flat, judge.load(), [0.0])
    assert said == {"things": False, "looks": False, "background": True, "all of it": False}


def test_hues_agree_or_spread():
    assert resultant([1.0, 1.0 + 2 * math.pi, math.nan]) == pytest.approx(1)
    assert resultant([0, math.pi / 2, math.pi, -math.pi / 2]) == pytest.approx(0, abs=1e-6)
    assert resultant([0, math.pi / 2]) == pytest.approx(0.5**0.5)
    assert math.isnan(resultant([math.nan]))


def test_a_thing_that_is_asked_for_twice_stands_in_each_half_with_its_hue():
    asked = Question(("dog", "dog"), "gray", 0)
    made = picture((8, BLUE), (72, GREEN))
    both = Eye(dog=8)
    both.verdict.cells[:, :, 5:10, 9:14] = both.verdict.cells[:, :, 5:10, 1:6].clone()
    said = answers(asked, made[None], both, [BLUE, GREEN])
    assert said["all of it"] and said["in their places"]
    assert not answers(asked, made[None], both, [GREEN, BLUE])["looks"]
    assert not answers(asked, made[None], Eye(dog=8), [BLUE, GREEN])["things"]
