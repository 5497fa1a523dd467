"""The texts of a training step, encoded with the words that learn, with a gradient."""

import math
from dataclasses import dataclass
from itertools import chain

import torch

from ..host.layered_prompts import LAYERS
from ..text_contexts.concept_words import with_words
from ..text_contexts.word_tokenizer import WHOSE


@dataclass(frozen=True, eq=False)
class TrainedText:
    """One text: contexts (L or 1, T, D) by cross-attention, pooled text (1, P) or None, {word: its tokens' places}."""

    contexts: torch.Tensor
    pooled: torch.Tensor | None = None
    places: dict | None = None


class TrainedTexts:
    """The texts of a training. Those that nothing learned reads are encoded once."""

    def __init__(self, clip, learned, text_lora=False):
        """clip: loaded, with whatever words it knows; text_lora: whether its networks learn too."""
        self.clip, self.learned, self.text_lora = clip, learned, text_lora
        self.fixed = {}

    def of(self, prompts):
        """{prompt: its TrainedText} of the distinct ones, encoded now where something learns."""
        clip = with_words(self.clip, self.learned.as_words()) if self.learned.words else self.clip
        return {prompt: self._of(clip, prompt) for prompt in dict.fromkeys(prompts)}

    def _of(self, clip, prompt):
        if prompt in self.fixed:
            return self.fixed[prompt]
        tokens = clip.tokenize(prompt)
        places = places_of_words(tokens)
        if self.text_lora or self.learned.words.keys() & places.keys():
            return self._encoded(clip, tokens, places)
        with torch.no_grad():
            self.fixed[prompt] = self._encoded(clip, tokens, places)
        return self.fixed[prompt]

    def _encoded(self, clip, tokens, places):
        out = encoded_tokens(clip, tokens)
        contexts = (out[2] if len(out) > 2 else {}).get(LAYERS)
        if not isinstance(contexts, torch.Tensor):
            contexts = out[0]
        # the words of a file have a row for each layer, those that learn one for each of their groups
        if self.learned.layers and len(contexts) == 1 + max(self.learned.layers):
            contexts = contexts[list(self.learned.layers)]
        return TrainedText(contexts, out[1], places)


def encoded_tokens(clip, tokens):
    """(context (1, T, D), pooled text or None, ...) of tokens, as the host's own encoding has it, of a loaded CLIP."""
    network = clip.cond_stage_model
    network.reset_clip_options()
    if clip.layer_idx is not None:
        network.set_clip_options({"layer": clip.layer_idx})
    # older hosts go by where the weights are
    network.set_clip_options({"execution_device": clip.patcher.load_device})
    return network.encode_token_weights(tokens)


def places_of_words(tokens):
    """{word: the places of its tokens} in a prompt's tokens, {encoder: [[(token, ...), ...]]}."""
    places = {}
    for place, (token, *_) in enumerate(chain.from_iterable(next(iter(tokens.values())))):
        places.setdefault(getattr(token, WHOSE, None), []).append(place)
    places.pop(None, None)
    return {name: tuple(own) for name, own in places.items()}


def first_run(places):
    """Of the places of a word those where it first stands: what follows each other at once."""
    return tuple(place for number, place in enumerate(places) if place == places[0] + number)


def batched_contexts(texts, like):
    """(b, L or 1, T, D) of several TrainedTexts, on the device and in the dtype of a tensor.

    Shorter ones are repeated, as the host does; none differs by layer where only some do.
    """
    length = math.lcm(*(text.contexts.shape[1] for text in texts))
    layers = max(len(text.contexts) for text in texts)
    rows = [text.contexts.repeat(1, length // text.contexts.shape[1], 1).expand(layers, -1, -1) for text in texts]
    return torch.stack(rows).to(like)
