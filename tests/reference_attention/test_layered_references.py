"""References whose own prompt holds words with a context per layer: each layer reads its own."""

import pytest
import torch
from support.compare import differ
from support.models import sample, tiny_model
from support.references import TinyClip, draw, prompt, references, width_of, with_references

from pack.nodes.host.blocks import attention_blocks
from pack.nodes.host.layered_prompts import LAYERS, PLAIN
from pack.nodes.reference_attention import entry_reader


@pytest.fixture
def model():
    return tiny_model("sd15")


class LayeredClip(TinyClip):
    """Encodes every text with other contexts at each layer."""

    def __init__(self, model, contexts):
        super().__init__(model)
        self.contexts = contexts

    def encode_from_tokens_scheduled(self, tokens):
        return [[self.contexts[:1], {LAYERS: self.contexts, PLAIN: self.contexts[:1]}]]


def contexts(model, seed=0):
    return draw(len(attention_blocks(model.model.diffusion_model)), 7, width_of(model), seed=seed)


def picture(model, **kwargs):
    return sample(model, prompt(model, 100), prompt(model, 200), **kwargs)


def test_each_layer_of_the_reference_pass_reads_its_own_context(model, monkeypatch):
    """Recorded at the UNet itself: the text keys of layer l are those of row l."""
    layers, seen = contexts(model), {}
    patched = with_references(model, references(1), clip=LayeredClip(model, layers), cache_mb=0)
    real, hooks = entry_reader.caught, []

    def watched(*args):
        for number, block in enumerate(attention_blocks(model.model.diffusion_model)):
            name, index, part = block
            unet = model.model.diffusion_model
            where = unet.middle_block if name == "middle" else getattr(unet, f"{name}_blocks")[index]
            (transformer,) = (layer for layer in where if hasattr(layer, "transformer_blocks"))
            to_k = transformer.transformer_blocks[part].attn2.to_k

            def note(layer, args, number=number):
                seen[number] = args[0]

            hooks.append(to_k.register_forward_pre_hook(note))
        try:
            return real(*args)
        finally:
            for hook in hooks:
                hook.remove()

    monkeypatch.setattr(entry_reader, "caught", watched)
    picture(patched, steps=1)
    # nothing is computed behind the last block that is needed
    assert len(seen) > 3
    for number, context in seen.items():
        torch.testing.assert_close(context, layers[number][None])


def test_the_first_context_alone_gives_another_picture(model):
    layers = contexts(model)
    found = {
        name: picture(with_references(model, references(2), clip=LayeredClip(model, which)))
        for name, which in (("layers", layers), ("first", layers[:1].expand_as(layers)), ("other", contexts(model, 9)))
    }
    assert differ(found["layers"], found["first"]) > 1e-3
    # the cache tells them apart by all layers, not by the first
    changed = torch.cat([layers[:1], contexts(model, 9)[1:]])
    again = picture(with_references(model, references(2), clip=LayeredClip(model, changed)))
    assert differ(again, found["layers"]) > 1e-3


def test_equal_contexts_at_all_layers_are_an_ordinary_prompt(model):
    layers = contexts(model)[:1].expand(16, -1, -1)
    clip = TinyClip(model)
    clip.encode_from_tokens_scheduled = lambda tokens: [[layers[:1], {}]]
    plain = picture(with_references(model, references(2), clip=clip))
    assert torch.equal(picture(with_references(model, references(2), clip=LayeredClip(model, layers))), plain)
