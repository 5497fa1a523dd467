"""What feeds image prompts in tests: a CLIP of given words, a vision encoder of given outputs, adapters in memory."""

from types import SimpleNamespace

import torch
from support.golden_data import case
from support.models import execute
from support.references import draw, prompt, width_of

from pack.nodes.image_adapters.image_adapter import adapter_from
from pack.nodes.image_prompts import mip_adapter
from pack.nodes.image_prompts.mip_adapter_node import MIPAdapter
from pack.nodes.references.references_node import AddReference

START, END = 49406, 49407


class WordCLIP:
    """Texts and their tokens: {text: (ids, context (1, m, D), further conditioning values)}."""

    def __init__(self, table):
        self.table = table
        self.texts = {tuple(ids): text for text, (ids, *_) in table.items()}
        self.encoded = []

    def tokenize(self, text):
        ids = self.table[text][0]
        chunk = [(START, 1.0), *((i, 1.0) for i in ids), (END, 1.0)]
        return {"l": [chunk + [(END, 1.0)] * (77 - len(chunk))]}

    def encode_from_tokens_scheduled(self, tokens):
        ids = [token for token, _ in tokens["l"][0]][1:]
        text = self.texts[tuple(ids[: ids.index(END)])]
        self.encoded.append(text)
        _, context, values = self.table[text]
        return [[context, dict(values)]]


class StubVision:
    """encode_image() hands out given rows, one per call; `empty` is what zero pixels give."""

    def __init__(self, rows, output, empty=None):
        self.rows, self.output, self.empty = rows, output, empty
        self.calls = 0

    def encode_image(self, image, crop=True):
        self.calls += 1
        return SimpleNamespace(**{self.output: self.rows[(self.calls - 1) % len(self.rows)][None]})


def adapter_of(name):
    """The ImageAdapter of a recorded weights file."""
    return adapter_from(case(f"mip_adapter/{name}")[0], f"{name}.safetensors")


def words_of(golden, params, y=None):
    """(WordCLIP, the words) of a recorded case: word i has as many tokens as recorded, all distinct."""
    counts = params["entity_token_counts"]
    words = [f"object {i}" for i in range(len(counts))]
    ids = [[100 * (i + 1) + t for t in range(count)] for i, count in enumerate(counts)]
    table = {word: (ids[i], golden["entity_context"][i][None], y or {}) for i, word in enumerate(words)}
    positions = params.get("prompt_positions")
    if positions:
        prompt = [1] * 20
        for start, own in zip(positions, ids, strict=True):
            # position 0 is the start token
            prompt[start - 1 : start - 1 + len(own)] = own
        table["the prompt"] = (prompt, golden["context_cond"], y or {})
    return WordCLIP(table), words


def vision_of(golden):
    if "clip_image_embeds" in golden:
        return StubVision(golden["clip_image_embeds"], "image_embeds")
    empty = golden.get("clip_penultimate_uncond")
    return StubVision(golden["clip_penultimate"], "penultimate_hidden_states", empty)


def references_of(words, images=None, strengths=None, regions=None, **inputs):
    """A chain of References, one per word."""
    chain = ()
    for i, word in enumerate(words):
        (chain,) = execute(
            AddReference,
            image=torch.full((images[i] if images else 1, 16, 16, 3), (i + 1) / 10),
            word=word,
            strength=strengths[i] if strengths else 1.0,
            region=regions[i] if regions is not None else None,
            references=chain,
            **inputs,
        )
    return chain


def patched(model, golden, params, monkeypatch, **inputs):
    """The MODEL with the references of a recorded case, through Add Reference and the MIP-Adapter node."""
    y = {"pooled_output": golden["pooled_cond"][:1], "time_ids": golden["time_ids"]} if "time_ids" in golden else {}
    clip, words = words_of(golden, params, y)
    vision = vision_of(golden)
    monkeypatch.setattr(
        mip_adapter,
        "encode_pixels",
        lambda clip_vision, pixels: SimpleNamespace(penultimate_hidden_states=clip_vision.empty),
    )
    given = dict(
        model=model,
        adapter=adapter_of(params["weights"].removesuffix(".safetensors")),
        clip=clip,
        clip_vision=vision,
        scale=params["scale"],
        merge_power=params.get("merge_power", 1.0),
        references=references_of(words, params["images_per_object"], params.get("strengths"), golden.get("masks")),
    )
    if "prompt_positions" in params:
        given |= {"phrase_source": "prompt", "prompt": "the prompt"}
    return execute(MIPAdapter, **given | inputs)[0]


class TinyWords(WordCLIP):
    """Any word gives two tokens and a context drawn from its letters; for a tiny MODEL."""

    def __init__(self, model):
        self.model, self.encoded = model, []

    def tokenize(self, text):
        ids = [sum(part.encode()) for part in text.split()]
        chunk = [(START, 1.0), *((i, 1.0) for i in ids), (END, 1.0)]
        return {"l": [chunk + [(END, 1.0)] * (77 - len(chunk))], "text": text}

    def encode_from_tokens_scheduled(self, tokens):
        text = tokens["text"]
        self.encoded.append(text)
        return prompt(self.model, seed=sum(text.encode()), tokens=77)


class GreyVision:
    """Image embeddings that depend on the picture's mean colour; `calls` counts the pictures."""

    def __init__(self, width=24):
        self.width, self.calls = width, 0

    def encode_image(self, image, crop=True):
        self.calls += 1
        grey = float(image.mean())
        return SimpleNamespace(image_embeds=draw(1, self.width, seed=round(1e4 * grey)))


ADAPTERS = {"sd15": "weights_sd15_ip_adapter", "sdxl": "weights_sdxl_base"}


def with_pictures(model, words=("a cat", "hat"), adapter=None, **inputs):
    """The MODEL after the MIP-Adapter node, one reference per word."""
    kind = "sdxl" if width_of(model) == 48 else "sd15"
    own = {name: inputs.pop(name) for name in ("strengths", "regions") if name in inputs}
    given = {
        "adapter": adapter or adapter_of(ADAPTERS[kind]),
        "clip": TinyWords(model),
        "clip_vision": GreyVision(),
        "references": references_of(words, **own),
    }
    return execute(MIPAdapter, model=model, **given | inputs)[0]
