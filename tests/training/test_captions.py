"""What pictures are called while they are learned."""

import itertools

import pytest
import torch

from pack.nodes.training import captions as module
from pack.nodes.training.caption_templates import TEMPLATES
from pack.nodes.training.captions import caption_lines, captions_of
from pack.nodes.training.pictures_wire import Subject


def subject(captions=(), templates="object", count=2, word="<my_cat>"):
    return Subject(torch.zeros(count, 64, 64, 3), word, "cat", tuple(captions), templates)


def shares(*values):
    return iter(values).__next__


@pytest.fixture
def said(monkeypatch):
    found = []
    monkeypatch.setattr(module, "warn_user", found.append)
    return found


@pytest.mark.parametrize("kind", list(TEMPLATES))
def test_templates_name_the_word_once(kind):
    assert 20 <= len(TEMPLATES[kind]) == len(set(TEMPLATES[kind])) <= 27
    assert all(template.count("{}") == 1 for template in TEMPLATES[kind])
    made = captions_of(subject(templates=kind), "<a> <b>")
    assert made.all == tuple(template.replace("{}", "<a> <b>") for template in TEMPLATES[kind])
    assert made.drawn(1, shares(0.0)) == made.all[0] and made.drawn(0, shares(0.9999)) == made.all[-1]


def test_each_picture_has_its_own_caption_or_all_the_same():
    each = captions_of(subject(["{} on grass", "{} asleep"]), "sks cat")
    assert [each.drawn(number, shares(0.5)) for number in (0, 1)] == ["sks cat on grass", "sks cat asleep"]
    same = captions_of(subject(["a {}"], count=3), "<my_cat>")
    assert [same.drawn(number, shares(0.5)) for number in range(3)] == ["a <my_cat>"] * 3


def test_a_caption_without_the_word_gets_it_in_front_and_that_is_said(said):
    made = captions_of(subject(["on grass", "<my_cat> asleep"]), "<my_cat>")
    assert made.all == ("<my_cat> on grass", "<my_cat> asleep")
    (sentence,) = said
    assert "1 of 2 captions" in sentence and "<my_cat>" in sentence


def test_the_word_in_a_caption_stands_for_several(said):
    assert captions_of(subject(["a <my_cat> asleep"]), "<my_cat_1> <my_cat_2>").all == (
        "a <my_cat_1> <my_cat_2> asleep",
    )
    assert not said


@pytest.mark.parametrize(
    ("caption", "made"),
    [
        ("a photo of sks cat on grass, sks asleep", "a photo of sks cat on grass, sks cat asleep"),
        ("a photo of sks on grass, sks cat asleep", "a photo of sks cat on grass, sks cat asleep"),
        ("a photo of {} on grass", "a photo of sks cat on grass"),
    ],
)
def test_a_class_word_behind_the_word_is_not_doubled(caption, made, said):
    assert captions_of(subject([caption], count=1, word="sks"), "sks cat").all == (made,) and not said


@pytest.mark.parametrize(
    ("word", "words", "caption", "made"),
    [
        ("art", "art man", "a party at night, art smiling", "a party at night, art man smiling"),
        ("sks", "sks dog", "Sks dog on grass", "sks dog on grass"),
        ("sks", "sks dog", "a photo of SKS", "a photo of sks dog"),
        ("<cat>", "<cat>", "two<cat>s", "two<cat>s"),
    ],
)
def test_a_word_of_letters_is_not_sought_within_others(word, words, caption, made, said):
    assert captions_of(subject([caption], count=1, word=word), words).all == (made,) and not said


def test_a_word_that_stands_only_within_another_is_missing(said):
    made = captions_of(subject(["a man with tomatoes"], count=1, word="tom"), "tom man")
    assert made.all == ("tom man a man with tomatoes",) and len(said) == 1


def test_lists_are_shuffled_behind_their_first_entry():
    made = captions_of(subject(["photo of {}, red hat,blue coat , snow"]), "<c>")
    found = {
        made.drawn(0, shares(0.0, *pair), shuffled=True) for pair in itertools.product((0.0, 0.4, 0.7, 0.99), repeat=2)
    }
    tails = {", ".join(order) for order in itertools.permutations(["red hat", "blue coat", "snow"])}
    assert found == {f"photo of <c>, {tail}" for tail in tails}
    assert made.drawn(0, shares(0.0)) == "photo of <c>, red hat,blue coat , snow"
    plain = captions_of(subject(["photo of {}"]), "<c>")
    assert plain.drawn(0, shares(0.0), shuffled=True) == "photo of <c>"


def test_lines_of_captions():
    assert caption_lines(" a {}\n\n  \r\nb {} ") == ("a {}", "b {}")
