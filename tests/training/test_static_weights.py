"""Networks that stream their weights, as hosts have them on a GPU: a training gets a copy that lies in one place."""

import comfy.model_management as mm
import pytest
import torch
from support.clips import tiny_clip
from support.compare import relative
from support.models import tiny_model

from pack.nodes.text_contexts.concept_words import Word, with_words, words_of
from pack.nodes.training.static_weights import in_one_place
from pack.nodes.training.trained_texts import encoded_tokens


def streaming(owner, patcher, again):
    """As if the host streamed this one's weights and could read its file again with `again()`."""
    patcher.is_dynamic = lambda: True
    patcher.cached_patcher_init = (lambda disable_dynamic: again(), ())
    return owner


def modules(network):
    return list(network.children())


def encoded(clip, text):
    mm.load_models_gpu([clip.patcher], force_full_load=True)
    return encoded_tokens(clip, clip.tokenize(text))[0]


@pytest.mark.parametrize("word", ["", "<cat>"])
@torch.inference_mode()
def test_a_clip_is_read_with_its_weight_patches_and_words(word):
    clip, text = tiny_clip(), f"a photo of a {word or 'cat'}"
    plain = encoded(clip, text)
    if word:
        clip = with_words(clip, [Word(word, {"l": torch.rand(1, 32)})])
    weights = clip.patcher.model.state_dict()
    changed = [name for name in weights if name.endswith("layers.0.self_attn.v_proj.weight")]
    assert len(clip.add_patches({name: ("diff", (torch.randn_like(weights[name]),)) for name in changed})) == 1
    expected = encoded(clip, text)
    assert relative(expected, plain) > 1e-2
    mm.unload_all_models()

    made = in_one_place(streaming(clip, clip.patcher, lambda: tiny_clip().patcher), "clip")
    assert made.patcher.model is not clip.patcher.model
    assert all(
        one is other for one, other in zip(modules(made.patcher.model), modules(made.cond_stage_model), strict=True)
    )
    assert [one.name for one in words_of(made)] == ([word] if word else [])
    assert torch.equal(encoded(made, text), expected)


def test_a_model_has_the_new_network():
    model = tiny_model("sd15")
    again = tiny_model("sd15")
    made = in_one_place(streaming(model, model, lambda: again), "model")
    assert made.model is again.model


def test_a_loader_that_cannot_is_said():
    clip = tiny_clip()
    clip.patcher.is_dynamic, clip.patcher.cached_patcher_init = lambda: True, None
    with pytest.raises(ValueError, match="clip streams its weights.*--disable-dynamic-vram"):
        in_one_place(clip, "clip")


def test_what_lies_in_one_place_is_only_cloned():
    clip = tiny_clip()
    made = in_one_place(clip, "clip")
    assert made is not clip and made.cond_stage_model is clip.cond_stage_model
