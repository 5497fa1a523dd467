"""FLOPs of image prompts: a step as the host samples it, and the floor of MIP-Adapter beside it."""

from types import SimpleNamespace

import torch
from bench.flops import TEXT_TOKENS, costs, text
from support.image_prompts import WordCLIP, references_of
from support.models import execute

from pack.nodes.image_adapters.adapter_fit import cross_attentions
from pack.nodes.image_adapters.image_adapter import Embed, ImageAdapter, Pair
from pack.nodes.image_prompts.mip_adapter_node import MIPAdapter

EMBED = 1024
# Tokens of each reference's word.
WORD = 2


class Adapter(ImageAdapter):
    """An ImageAdapter whose image tokens are drawn: no encoder's work is measured here."""

    def project(self, embeds):
        """(m, T, D)."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(len(embeds), self.tokens, self.width, generator=generator)


def adapter(model, tokens, gated=True, random=False):
    """An adapter for a MODEL of the host; without `random` one number stands behind every matrix."""
    layers = list(cross_attentions(model.model.diffusion_model).values())

    def matrix(*shape):
        return torch.randn(shape) * shape[1] ** -0.5 if random else torch.zeros(()).expand(shape)

    pairs = tuple(Pair(matrix(c, d), matrix(c, d), matrix(1, c) if gated else None) for c, d in layers)
    return Adapter("drawn", "base", tokens, layers[0][1], Embed("image_embeds", EMBED), None, pairs)


class Vision:
    """encode_image() gives numbers; what they are does not matter."""

    def encode_image(self, image, crop=True):
        return SimpleNamespace(image_embeds=torch.zeros(1, EMBED))


def with_images(model, kind, references, tokens, gated=True, random=False, **inputs):
    """The MODEL with that many image prompts of `tokens` tokens each, through the public nodes."""
    words = [f"thing {i}" for i in range(references)]
    ids = {word: [100 * i + t for t in range(WORD)] for i, word in enumerate(words, 1)}
    context, values = text(kind)[0]
    clip = WordCLIP({word: (ids[word], torch.zeros(1, TEXT_TOKENS, context.shape[-1]), values) for word in words})
    return execute(
        MIPAdapter,
        model=model,
        adapter=adapter(model, tokens, gated, random),
        clip=clip,
        clip_vision=Vision(),
        references=references_of(words),
        **inputs,
    )[0]


def work(kind, size, references, tokens, gated=True, width=320):
    """(cheapest, floor): FLOPs that a step with CFG needs beside the plain one, after the method.

    Per layer of n positions and c channels, for both rows the gate and attention to the image tokens (all pictures on
    the conditional, one shared empty picture on the other), and the maps of the words where there are several.
    "cheapest"
    also reads the words anew at each step, in the text's own product; the floor keeps their keys.
    """
    layers = _layers(kind, size, width)
    words = WORD * references if references > 1 else 0
    per_position = 4 * tokens * (references + 1) + 2 * words + (4 if gated else 0)
    floor = sum(n * c * per_position for n, c, _ in layers)
    return floor + sum(2 * words * c * d for _, c, d in layers), floor


def _layers(kind, size, width):
    """(positions, channels, context width) of each cross-attention."""
    count = {"sd15": 16, "sdxl": 70}[kind]
    context = {"sd15": 768, "sdxl": 2048}[kind]
    return [(n, c, context) for n, c in costs(kind, size, range(count), width).blocks]
