"""What is asked of the pocket model, and the answers about pictures whose contents are known."""

import math
from collections import Counter

import judge
import pytest
from looks import apart
from pictures import read
from questions import Question, answers, hues_for, pairs, singles
from sight import resultant
from things import HELD_OUT, KIN, KNOWN


@pytest.mark.parametrize("ask", [singles, pairs])
def test_each_thing_is_asked_for_as_often_as_the_others(ask):
    asked = ask(2 * len(KNOWN), seed=3)
    counts = Counter(question.things[0] for question in asked)
    assert set(counts.values()) == {2} and len({question.seed for question in asked}) == len(asked)
    assert all(len(set(question.things)) == len(question.things) for question in asked)
    assert asked == ask(2 * len(KNOWN), seed=3) != ask(2 * len(KNOWN), seed=4)


def test_a_few_questions_are_of_any_things():
    """The first words of all are much alike: animals."""
    first = set(list(KNOWN)[:12])
    for ask in (singles, pairs):
        assert sum(set(question.things) <= first for question in ask(12, seed=3)) <= 4


def test_prompts_say_things_places_and_background():
    question = Question(("owl", "hat"), "orange", 0)
    assert question.prompt() == "an owl on the left and a hat on the right on an orange background"
    assert question.prompt(KIN) == "a parrot on the left and a crown on the right on an orange background"
    assert Question(("apple",), "red", 0).prompt() == "an apple on a red background"


def test_two_things_are_asked_for_in_hues_that_differ():
    asked = [hues_for(question) for question in pairs(300)]
    assert all(apart(one, other) > 2 * math.pi / 3 - 1e-6 for one, other in asked)
    assert resultant([hue for hues in asked for hue in hues]) < 0.15
    (question,) = singles(1)
    assert len(hues_for(question)) == 1 and hues_for(question) == hues_for(question)


def test_each_held_out_thing_has_a_known_one_that_is_like_it():
    assert set(KIN) == set(HELD_OUT) and set(KIN.values()) <= set(KNOWN)


def test_answers_about_the_sample_pictures():
    eye = judge.load()
    pictures, shown = read()
    right = 0
    for picture, one in zip(pictures.movedim(1, -1)[:, None], shown, strict=True):
        said = answers(Question(tuple(one["things"][:1]), one["colour"], 0), picture, eye)
        assert said["background"] and said["all things"]
        right += said["nothing else"] == (len(one["things"]) == 1)
        wrong = next(word for word in KNOWN if word not in one["things"])
        said = answers(Question((wrong,), "red" if one["colour"] != "red" else "blue", 0), picture, eye)
        assert not (said["background"] or said["all things"] or said["nothing else"])
    assert right >= len(shown) - 1


def test_places_are_told_apart():
    eye = judge.load()
    pictures, shown = read()
    side_by_side = [i for i, one in enumerate(shown) if " left" in one["caption"] and " right" in one["caption"]]
    for i in side_by_side:
        words = shown[i]["caption"].split()
        placed = tuple(sorted(shown[i]["things"], key=lambda word: words[words.index(word) + 3] == "right"))
        for things, expected in ((placed, True), (placed[::-1], False)):
            said = answers(Question(things, shown[i]["colour"], 0), pictures[i].movedim(0, -1)[None], eye)
            assert said["in their places"] == expected
    assert side_by_side
