"""Texts of a training step: rows for each layer, whoever brought them."""

import torch
from support.clips import encoded, tiny_clip

from pack.nodes.host.layered_prompts import LAYERS
from pack.nodes.text_contexts.concept_words import Word, with_words
from pack.nodes.training.learned import Learned
from pack.nodes.training.trained_texts import TrainedTexts, first_run, places_of_words


def test_learned_rows_are_of_groups_of_layers_and_loaded_ones_of_layers():
    clip = with_words(tiny_clip(), [Word("<loaded>", {"l": torch.randn(5, 32)})])
    groups = (0, 0, 1, 2, 2)
    learned = Learned({"<own>": {"l": torch.randn(3, 32)}}, layers=groups)
    texts = TrainedTexts(clip, learned).of(["a <own>", "a <loaded>", "a cat"])
    with torch.no_grad():
        by_layer = with_words(clip, learned.as_words(every=True))
        ((_, own),), ((_, loaded),) = encoded(by_layer, "a <own>"), encoded(by_layer, "a <loaded>")
    assert torch.allclose(texts["a <own>"].contexts.detach(), own[LAYERS], atol=1e-6)
    assert torch.allclose(texts["a <loaded>"].contexts, loaded[LAYERS], atol=1e-6)
    assert [len(text.contexts) for text in texts.values()] == [5, 5, 1]


def test_places_of_words_and_where_they_first_stand():
    words = [Word("<two>", {"l": torch.randn(2, 1, 1, 32)}), Word("<one>", {"l": torch.randn(1, 32)})]
    clip = with_words(tiny_clip(), words)
    places = places_of_words(clip.tokenize("<two> a <one> <two>"))
    assert places == {"<two>": (1, 2, 5, 6), "<one>": (4,)}
    assert [first_run(places[word]) for word in ("<two>", "<one>")] == [(1, 2), (4,)] and first_run(()) == ()
