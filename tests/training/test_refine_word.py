"""Refine Word: the rest of a prompt comes to read as with the class word, and the CLIP that came stays as it is."""

import comfy.model_management as mm
import pytest
import torch
import torch.nn.functional as F
from support.clips import encoded, tiny_clip
from support.compare import relative
from support.golden_data import case
from support.models import execute
from support.word_files import concept_clip

from pack.nodes.host.content_keys import digest
from pack.nodes.text_contexts.concept_words import Word, with_words, words_of
from pack.nodes.training.refine_word_node import RefineWord


def golden_clip():
    golden, params = case("training/core")
    return with_words(concept_clip(), [Word("<w>", {"l": golden["init/<w>"].float()[:, None, None]})]), golden, params


def refined(clip, **inputs):
    """(the CLIP, the report) inside of inference mode, as a server runs it."""
    inputs = {"word": "<w>", "class_word": "33", "prompt": "20 {} 21 22", **inputs}
    with torch.inference_mode():
        return execute(RefineWord, clip=clip, **inputs)


def rows_of(clip, encoder="l"):
    (word,) = words_of(clip)
    return word.vectors(encoder)[:, 0, 0]


def off(clip, rows, pair, places):
    """How far the rest of a prompt is off, by the host's own encoding and the formula, token by token."""
    own = encoded(with_words(clip, [Word("<w>", {name: one[:, None, None] for name, one in rows.items()})]), pair[0])
    ours, theirs = own[0][0][0], encoded(clip, pair[1])[0][0][0]
    alike = [F.cosine_similarity(a, b, dim=0) for i, (a, b) in enumerate(zip(ours, theirs)) if i not in places]
    return 1 - torch.stack(alike).double().mean()


def test_it_begins_at_the_golden_loss_and_ends_lower():
    clip, golden, params = golden_clip()
    prompt = params["regularisation_prompt"]
    made, report = refined(clip, prompt=prompt, steps=40, pull=0.0)
    loss = float(golden["step0/loss_embedding"])
    assert f"was {loss:.4f}" in report and f'<w> in "{prompt}"' in report and "in 40 steps" in report
    pair = prompt, params["reference_prompt"]
    last = off(clip, {"l": rows_of(made)}, pair, {2})
    assert last < 0.8 * loss and f"off by {last:.4f}" in report


def test_each_place_of_the_word_is_its_own():
    """None of them is the rest of the prompt, which is compared."""
    clip = golden_clip()[0]
    prompt = "20 {} 21 {} 22"
    _, report = refined(clip, prompt=prompt, class_word="33", steps=1)
    first = off(clip, {"l": rows_of(clip)}, (prompt.replace("{}", "<w>"), prompt.replace("{}", "33")), {2, 4})
    assert f"was {first:.4f}" in report


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_a_step_goes_against_the_gradient(kind):
    """Adam's first step is the learning rate in each place, against the sign of the loss's differences."""
    generator = torch.Generator().manual_seed(3)
    clip, sizes = tiny_clip(kind), {"sd15": {"l": 32}, "sdxl": {"l": 32, "g": 48}}[kind]
    rows = {name: 0.5 * torch.randn(1, size, generator=generator) for name, size in sizes.items()}
    taught = with_words(clip, [Word("<w>", {name: one[:, None, None] for name, one in rows.items()})])
    made, _ = refined(taught, class_word="cat", prompt="a {} in sand", steps=1, learning_rate=1e-3, pull=0.0)
    pair, checked = ("a <w> in sand", "a cat in sand"), 0
    for encoder, start in rows.items():
        moved = rows_of(made, encoder) - start * (1 - 1e-3 * 1e-2)
        for place in range(0, start.shape[1], 3):
            ends = []
            for sign in (1, -1):
                near = start.clone()
                near[0, place] += sign * 1e-2
                ends.append(off(clip, {**rows, encoder: near}, pair, {2}))
            slope = float(ends[0] - ends[1]) / 2e-2
            # where it is flat, differences say nothing
            if abs(slope) > 1e-4:
                assert float(moved[0, place]) == pytest.approx(-1e-3 * (1 if slope > 0 else -1), rel=1e-2)
                checked += 1
    assert checked > 4


def test_pull_holds_the_word():
    clip, golden, _ = golden_clip()
    start = golden["init/<w>"].float()
    free, held = (relative(rows_of(refined(clip, pull=pull)[0]), start) for pull in (0.0, 1.0))
    assert held < free / 2


def test_the_clip_that_came_is_untouched_and_other_words_stay(monkeypatch):
    clip, _, _ = golden_clip()
    clip = with_words(clip, [Word("<other>", {"l": torch.ones(1, 1, 32)})])
    before = digest(*clip.cond_stage_model.state_dict().values()), rows_of_word(clip, "<w>").clone()
    made, _ = refined(clip, steps=2)
    assert torch.equal(rows_of_word(made, "<other>"), rows_of_word(clip, "<other>"))
    assert not torch.equal(rows_of_word(made, "<w>"), before[1])
    mm.interrupt_current_processing()
    with pytest.raises(mm.InterruptProcessingException):
        refined(clip)
    assert digest(*clip.cond_stage_model.state_dict().values()) == before[0]
    assert torch.equal(rows_of_word(clip, "<w>"), before[1])
    assert not any(module._forward_pre_hooks for module in clip.cond_stage_model.modules())


def rows_of_word(clip, name):
    return next(word for word in words_of(clip) if word.name == name).rows["l"]


LAYERED = Word("<each>", {"l": torch.ones(16, 32)})


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"word": "<x>"}, 'does not know the word "<x>" .it knows <w>, <each>'),
        ({"word": "<each>"}, "<each> differs by layer"),
        ({"prompt": "20 21"}, "names the word nowhere"),
        ({"class_word": " "}, "no class word"),
        ({"class_word": "33 34"}, "is 2 tokens and <w> has 1 vectors"),
        ({"learning_rate": float("nan")}, "learning_rate is"),
        ({"learning_rate": 1.0, "steps": 0}, "steps is 0"),
        ({"clip": None}, "clip is empty"),
    ],
)
def test_what_cannot_be_refined_is_refused(inputs, says):
    clip = with_words(golden_clip()[0], [LAYERED])
    with pytest.raises(ValueError, match=says):
        refined(**{"clip": clip, **inputs})
