"""MIP-Adapter's `prompt` against the prompt that is sampled: a proved difference is said, and nothing else is."""

import gc
import sys
from types import SimpleNamespace

import pytest
import torch
from comfy_execution.utils import CurrentNodeContext
from support.clips import encoded, tiny_clip
from support.compare import differ
from support.contexts import random
from support.image_prompts import with_pictures
from support.models import sample, tiny_model

from nodes import (
    CLIPSetLastLayer,
    ConditioningCombine,
    ConditioningConcat,
    ConditioningSetArea,
    ConditioningSetTimestepRange,
    ConditioningZeroOut,
)
from pack.nodes.host import messages
from pack.nodes.host.attach import attach
from pack.nodes.host.blocks import attention_blocks, cross_attention
from pack.nodes.host.layered_prompts import LAYERS
from pack.nodes.image_prompts import image_run, sampled_text
from pack.nodes.text_contexts.concept_words import Word, with_words
from pack.nodes.text_contexts.context_router import ContextRouter

PROMPT = "a fox and a cat on the beach"
LONG = PROMPT + ", sun" * 60


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def model(kind):
    return tiny_model(kind)


@pytest.fixture(scope="module")
def clip(kind):
    return tiny_clip(kind, widths={"l": 32} if kind == "sd15" else {"l": 16, "g": 32})


@pytest.fixture
def said(monkeypatch):
    """The sentences that are shown on a node."""
    found = []
    monkeypatch.setattr(messages, "_show", found.append)
    return found


def pooled(conditioning):
    """The tiny UNet reads 40 numbers of pooled text."""
    return [[t, {**values, "pooled_output": torch.ones(1, 40)}] for t, values in conditioning]


def run(model, clip, positive, prompt=PROMPT, **inputs):
    inputs = {"words": ("fox", "cat"), "phrase_source": "prompt", "prompt": prompt, "clip": clip, **inputs}
    return sample(with_pictures(model, **inputs), pooled(positive), pooled(encoded(clip, "")), steps=1)


OTHERS = {
    "swapped": ("a cat and a fox on the beach", '"fox and a cat ..."'),
    "another word": ("a fox and a dog on the beach", '"cat on the beach"'),
    "longer": (PROMPT + " at night", "its end"),
    "shorter": ("a fox and a cat", '"on the beach"'),
    "weighted": ("a (fox:1.3) and a (dog:0.8) on the beach", '"cat on the beach"'),
    "nothing": ("", '"a fox and a ..."'),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_prompt_is_said_once_with_the_first_difference(model, clip, said, name):
    text, mine = OTHERS[name]
    run(model, clip, encoded(clip, text))
    assert len(said) == 1 and said[0].startswith("MIP-Adapter: prompt is not the prompt that is sampled"), said
    assert f"they differ from {mine} on; copy the sampled" in said[0]


def test_a_difference_in_a_later_part(model, clip, said):
    run(model, clip, encoded(clip, LONG + ", moon" * 30), prompt=LONG + ", moon" * 29 + ", star")
    assert len(said) == 1 and 'they differ from "star" on' in said[0]


@pytest.mark.parametrize("order", [1, -1])
def test_beside_the_prompt_another_text_reads_the_words_alone(model, clip, said, order):
    """The mean of two prompts: of the one in which the words have their places, and of the other without them."""
    first, second = encoded(clip, PROMPT), encoded(clip, "a hat beside a cat and a fox")
    (both,) = ConditioningCombine().combine(*(first, second)[::order])
    found = run(model, clip, both)
    assert len(said) == 1 and said[0].startswith("MIP-Adapter: 2 prompts are sampled, and prompt is one of them")
    wanted = run(model, clip, first), run(model, clip, second, phrase_source="standalone")
    assert differ(found, sum(wanted) / 2) < 2e-3
    assert differ(found, (wanted[0] + run(model, clip, second)) / 2) > 2e-2


def test_none_of_two_prompts_is_said_once(model, clip, said):
    texts = (encoded(clip, text) for text in ("a dog and a fox", "a cat and a fox"))
    run(model, clip, ConditioningCombine().combine(*texts)[0])
    assert len(said) == 1 and said[0].startswith("MIP-Adapter: prompt is not the prompt that is sampled")


def of_another_layer(clip):
    return CLIPSetLastLayer().set_last_layer(clip, -3)[0]


SAME = {
    "equal": lambda clip: encoded(clip, PROMPT),
    "weights": lambda clip: encoded(clip, "a (fox:1.3) and a (cat:0.7) on (the beach)"),
    "weights everywhere": lambda clip: encoded(clip, f"({PROMPT}:1.4)"),
    "another layer of the CLIP": lambda clip: encoded(of_another_layer(clip), "a cat and a fox"),
    "another CLIP": lambda clip: encoded(tiny_clip("sd15", 7, widths={"l": clip_width(clip)}), "a cat and a fox"),
    "more behind": lambda clip: ConditioningConcat().concat(encoded(clip, PROMPT), encoded(clip, "by night"))[0],
    "an area": lambda clip: ConditioningSetArea().append(encoded(clip, PROMPT), 32, 64, 0, 0, 1.0)[0],
    "a range": lambda clip: ConditioningSetTimestepRange().set_range(encoded(clip, PROMPT), 0.0, 0.9)[0],
    "emptied": lambda clip: ConditioningZeroOut().zero_out(encoded(clip, "a cat and a fox"))[0],
    "half precision": lambda clip: [[t.half().float(), values] for t, values in encoded(clip, PROMPT)],
    "no CLIP's": lambda clip: [[torch.randn(1, 77, clip_width(clip)), {}]],
    "no CLIP's number of tokens": lambda clip: [[torch.randn(1, 7, clip_width(clip)), {}]],
}


def clip_width(clip):
    return encoded(clip, "")[0][0].shape[-1]


@pytest.mark.parametrize("name", SAME)
def test_no_false_alarm(model, clip, said, name):
    run(model, clip, SAME[name](clip))
    assert not said


def test_a_prompt_that_no_place_is_read_from_is_not_compared(model, clip, said):
    other = encoded(clip, "a cat and a fox on the beach")
    run(model, clip, other, phrase_source="standalone")
    run(model, clip, other, merge="joint")
    run(model, clip, other, words=("fox",))
    assert not said


def test_without_the_clip_the_token_is_named(model, kind, said):
    """MIP-Adapter holds no CLIP; the host may have dropped it by the time a picture is sampled."""
    clip = tiny_clip(kind, widths={"l": 32} if kind == "sd15" else {"l": 16, "g": 32})
    inputs = {"words": ("fox", "cat"), "phrase_source": "prompt", "prompt": PROMPT}
    texts = [pooled(encoded(clip, text)) for text in ("a cat and a fox", "")]
    patched = with_pictures(model, clip=clip, **inputs)
    del clip
    gc.collect()
    sample(patched, *texts, steps=1)
    assert len(said) == 1 and "they differ from token 2 on; copy" in said[0]


def test_the_words_keys_are_those_of_each_layer(model, kind, clip, monkeypatch):
    """Words that say another thing at each layer: the maps of a layer come from what the UNet reads there."""
    layers = len(attention_blocks(model.model.diffusion_model))
    widths = {"l": 32} if kind == "sd15" else {"l": 16, "g": 32}
    rows = {name: random(layers, width, seed=3) for name, width in widths.items()}
    taught = with_words(clip, [Word("<fox>", rows)])
    prompt = "a <fox> and a cat on the beach"
    inputs = {"words": ("<fox>", "cat"), "phrase_source": "prompt", "prompt": prompt, "clip": taught}
    real, found = image_run._keys_at_all_blocks, []

    def noted(call, member, chunk):
        keys = real(call, member, chunk)
        found.append((call.base.diffusion_model, chunk, keys))
        return keys

    monkeypatch.setattr(image_run, "_keys_at_all_blocks", noted)
    positive = pooled(encoded(taught, prompt))
    layered = positive[0][1][LAYERS]
    assert layered.shape[0] == layers
    for reads in (True, False):
        found.clear()
        patched = with_pictures(attach(model, ContextRouter(())) if reads else model, **inputs)
        sample(patched, positive, pooled(encoded(clip, "")), steps=1)
        ((unet, _, keys),) = [one for one in found if one[1] is not None]
        for layer, (block, made) in enumerate(keys.items()):
            # the word is the third token, behind the start and "a"
            row = layered[layer if reads else 0, 2:3]
            with torch.inference_mode():
                wanted = cross_attention(unet, block).to_k(row).float()
            torch.testing.assert_close(made[0, :1], wanted, rtol=1e-4, atol=1e-5)


def test_the_sampled_text_is_found_in_the_graph(model, clip, said, monkeypatch):
    """On a server the texts of the running graph are known; the one whose context is sampled is quoted."""
    graph = {
        "1": {"class_type": "Elsewhere", "inputs": {"name": "a file", "count": 3, "link": ["2", 0]}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "bad", "clip": ["9", 1]}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat and a fox on the beach", "clip": ["9", 1]}},
    }
    queue = SimpleNamespace(currently_running={0: (1, "this", graph, {}, []), 1: (2, "other", {}, {}, [])})
    server = SimpleNamespace(PromptServer=SimpleNamespace(instance=SimpleNamespace(prompt_queue=queue)))
    monkeypatch.setitem(sys.modules, "server", server)
    with CurrentNodeContext("this", "5"):
        run(model, clip, encoded(clip, "a cat and a fox on the beach"))
        run(model, clip, encoded(clip, "a dog and a fox on the beach"))
    assert 'differ from "fox and a cat ..." on, where the sampled one has "cat and a fox ..."' in said[0]
    assert 'differ from "fox and a cat ..." on; copy' in said[1]


def test_a_text_of_the_graph_is_encoded_once_and_only_if_it_begins_alike(model, kind, said, monkeypatch):
    clip = tiny_clip(kind, widths={"l": 32} if kind == "sd15" else {"l": 16, "g": 32})
    other = "a fox and a dog on the beach"
    texts = [f"number {i}" for i in range(20)] + [other, "a fox and nothing", "bad"]
    read, real = [], clip.encode_from_tokens_scheduled
    monkeypatch.setattr(sampled_text, "texts_of_graph", lambda: texts)
    positive = encoded(clip, other)
    inputs = {"words": ("fox", "cat"), "phrase_source": "prompt", "prompt": PROMPT, "clip": clip}
    patched = with_pictures(model, **inputs)
    monkeypatch.setattr(clip, "encode_from_tokens_scheduled", lambda tokens: read.append(tokens) or real(tokens))
    for _ in range(3):
        sample(patched, pooled(positive), pooled(positive), steps=1)
    assert len(read) == 1
    assert len(said) == 3 and all('where the sampled one has "dog on the beach"' in one for one in said)
