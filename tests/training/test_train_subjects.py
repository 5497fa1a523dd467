"""The words of a training: which are refused before anything is learned."""

import pytest
import torch
from support.clips import tiny_clip
from support.word_files import concept_clip

from pack.nodes.text_contexts.concept_words import Word, with_words
from pack.nodes.training.methods import METHODS
from pack.nodes.training.pictures_wire import Subject, TrainingPictures
from pack.nodes.training.train_subjects import words_of_pictures

CLIP = concept_clip()


@pytest.fixture(scope="module")
def reading():
    """A CLIP with the host's own tokenizer."""
    return tiny_clip("sd15")


def words_of_subjects(*words, method="word", clip=CLIP):
    """(names, class words) of subjects, given as (word, class word)."""
    subjects = tuple(Subject(torch.zeros(1, 64, 64, 3), word, kind) for word, kind in words)
    return words_of_pictures(TrainingPictures(subjects), clip, METHODS[method], method)


def knowing(*names):
    return with_words(CLIP, [Word(name, {"l": torch.zeros(1, 32)}) for name in names])


@pytest.mark.parametrize(
    ("method", "known"), [("word", "x<it>"), ("parts", "<it>s"), ("crossed word", "a <it>"), ("ED-LoRA", "x<it_2>")]
)
def test_a_word_that_stands_in_one_that_the_clip_knows_is_refused(method, known):
    with pytest.raises(ValueError, match=f'"<it(_2)?>" stands in "{known}", which this clip knows'):
        words_of_subjects(("<it>", "33"), ("<b>", "34"), method=method, clip=knowing("<other>", known))


def test_pictures_of_one_subject_may_come_in_several_sizes():
    names, classes = words_of_subjects(("<it>", "33"), ("<b>", "34"), (" <it>", "33"), method="parts")
    assert names == (("<it>",), ("<b>",), ("<it>",)) and classes == (("33",), ("34",), ("33",))


@pytest.mark.parametrize(
    ("method", "subjects", "says"),
    [
        ("word", [("<it>", "33"), ("<it>", "34")], '"<it>" came twice, with the class words "33" and "34"'),
        ("parts", [("<it>", "33"), ("<it>", "33")], "needs two or more subjects, but only one came"),
        ("word", [("<it>", "33"), ("<it>s", "33")], "contains the other"),
    ],
)
def test_subjects_that_are_not_one(method, subjects, says):
    with pytest.raises(ValueError, match=says):
        words_of_subjects(*subjects, method=method)


@pytest.mark.parametrize("word", ["(98)", "(<it>)", "my(cat)", "((a b))", "<it\\(>"])
@pytest.mark.parametrize("method", ["word", "ED-LoRA"])
def test_a_word_that_the_host_reads_as_something_else_is_refused(reading, method, word):
    with pytest.raises(ValueError, match="is read as something else in a prompt"):
        words_of_subjects((word, "cat"), method=method, clip=reading)


@pytest.mark.parametrize("word", ["<it>", "<my cat>", "a_cat", "[it]", "<it:2>", "cat-1", "*it*", "<it.a>"])
def test_a_word_that_is_read_as_it_is(reading, word):
    assert words_of_subjects((word, "cat"), clip=reading)[0] == ((word,),)


@pytest.mark.parametrize(("method", "known"), [("word", "<it>"), ("LoRA", "x<it>"), ("word", "it")])
def test_a_word_that_the_clip_knows_may_be_learned_anew(method, known):
    assert words_of_subjects(("<it>", "33"), method=method, clip=knowing(known)) == ((("<it>",),), (("33",),))
