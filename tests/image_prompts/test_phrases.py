"""Words as tokens, with the host's own tokenizers: how many, and where they stand in a prompt."""

import comfy.sd1_clip
import comfy.sdxl_clip
import pytest
import torch
from support.golden_data import case
from support.models import tiny_model

from pack.nodes.image_prompts.phrases import phrases_of


class HostWords:
    """The host's tokenizer; a context whose row i holds the number i."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def tokenize(self, text):
        return self.tokenizer.tokenize_with_weights(text)

    def encode_from_tokens_scheduled(self, tokens):
        rows = sum(len(chunk) for chunk in tokens["l"])
        return [[torch.arange(rows)[None, :, None].float().expand(1, rows, 32), {}]]


@pytest.fixture(scope="module")
def base():
    return tiny_model("sd15").model


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def clip(request):
    kinds = {"sd15": comfy.sd1_clip.SD1Tokenizer, "sdxl": comfy.sdxl_clip.SDXLTokenizer}
    return HostWords(kinds[request.param]())


def test_recorded_words(base, clip):
    """Counts and first positions as recorded, the start token being position 0."""
    _, params = case("mip_adapter/tokens")
    assert len(params["rows"]) > 12
    for row in params["rows"]:
        (phrase,) = phrases_of(base, clip, [row["phrase"]], params["prompts"][row["prompt"]])
        assert phrase.rows[0, :, 0].tolist() == list(range(1, row["tokens"] + 1)), row
        first = row["position_in_prompt"]
        found = None if first < 0 else tuple(range(first, first + row["tokens"]))
        assert phrase.positions == found, row


def test_a_word_in_a_later_chunk(base, clip):
    """The second chunk of a long prompt begins at row 77, with a start token of its own."""
    prompt = "tree " * 80 + "and a cat"
    (phrase,) = phrases_of(base, clip, ["cat"], prompt)
    ids = [token for chunk in clip.tokenize(prompt)["l"] for token, *_ in chunk]
    (cat,) = [token for token, *_ in clip.tokenize("cat")["l"][0] if token not in (49406, 49407)]
    assert phrase.positions == (ids.index(cat),) and phrase.positions[0] > 77


def test_weights_in_a_word_are_no_tokens(base, clip):
    plain, weighted = phrases_of(base, clip, ["teddy bear", "(teddy bear:1.3)"], "a (teddy bear:0.8) on a chair")
    assert plain.tokens == weighted.tokens == 2
    assert plain.positions == weighted.positions == (2, 3)


def test_an_empty_word_has_no_tokens(base, clip):
    (phrase,) = phrases_of(base, clip, [""])
    assert not phrase.tokens and phrase.positions is None


def test_a_word_longer_than_a_chunk(base, clip, caplog):
    (phrase,) = phrases_of(base, clip, ["dog " * 90])
    assert phrase.tokens == 75
    assert "longer than 75 tokens" in caplog.text


def test_a_clip_that_reads_a_text_for_each_layer(base, clip):
    """An ED-LoRA's CLIP: the word has rows of its own at each cross-attention."""

    class Layered(HostWords):
        def encode_from_tokens_scheduled(self, tokens):
            ((context, values),) = super().encode_from_tokens_scheduled(tokens)
            layers = torch.cat([context + 100 * number for number in range(16)])
            return [[context, {**values, "personalization_layers": layers}]]

    (phrase,) = phrases_of(base, Layered(clip.tokenizer), ["cat"])
    assert phrase.tokens == 1 and phrase.rows[:, 0, 0].tolist() == [1 + 100 * number for number in range(16)]


WITHIN = [
    # (words, prompt, first positions)
    (["fox", "red fox"], "a fox and a red fox", [2, 5]),
    (["red fox", "fox"], "a red fox and a fox", [2, 6]),
    (["fox", "red fox"], "a red fox alone", [None, 2]),
    (["fox", "red fox", "big red fox"], "a big red fox, a red fox, a fox", [11, 7, 2]),
    # equal words share their place
    (["fox", "fox"], "a fox and a fox", [2, 2]),
]


@pytest.mark.parametrize(("words", "prompt", "firsts"), WITHIN, ids=lambda value: str(value))
def test_a_word_inside_a_longer_one_goes_on_to_its_next_place(base, clip, words, prompt, firsts):
    found = phrases_of(base, clip, words, prompt)
    assert [phrase.positions and phrase.positions[0] for phrase in found] == firsts
