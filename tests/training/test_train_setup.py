"""What a training begins with."""

from dataclasses import replace

import pytest
from support.word_files import concept_clip

from pack.nodes.training import train_setup as module
from pack.nodes.training.methods import METHODS
from pack.nodes.training.train_setup import references_of

KEPT = {"context": 0.05, "context_prompts": "5 {}\nno place\n{} 6"}


def test_a_method_without_words_has_no_context():
    settings = replace(METHODS["LoRA"], **KEPT)
    with pytest.raises(ValueError, match="context is 0.05, but this method has no word of its own"):
        references_of(concept_clip(), settings, (("sks",),), (("33",),))


@pytest.mark.parametrize(("kinds", "alone"), [(("33", "34"), ""), (("33", None), "<b>"), (("", None), "<a>, <b>")])
def test_words_without_a_class_word_have_no_context_and_that_is_said(kinds, alone, monkeypatch):
    said = []
    monkeypatch.setattr(module, "warn_user", said.append)
    found = references_of(concept_clip(), replace(METHODS["scene"], **KEPT), (("<a>", "<b>"),), (kinds,))
    pairs = [(name, kind) for name, kind in zip(("<a>", "<b>"), kinds, strict=True) if kind]
    assert found == [(line.format(name), line.format(kind), name) for line in ("5 {}", "{} 6") for name, kind in pairs]
    assert len(said) == bool(alone) and all(f"does not act on {alone}:" in sentence for sentence in said)
