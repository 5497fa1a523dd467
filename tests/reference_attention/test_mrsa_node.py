"""The MRSA node: its bad inputs are answered before sampling, in one sentence."""

import math

import pytest
import torch
from support.models import execute, tiny_model
from support.references import PixelVAE, TinyClip, half_mask, references, with_references

from pack.nodes.host.attach import techniques_of
from pack.nodes.reference_attention import reference_rows
from pack.nodes.references.references_node import AddReference


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"weight": math.nan}, "weight is nan; enter a number"),
        ({"weight": math.inf}, "weight is inf; enter a number"),
        ({"style_fidelity": math.nan}, "style_fidelity is nan"),
        ({"start_percent": 0.8, "end_percent": 0.2}, "start_percent 0.8 is after end_percent 0.2"),
        ({"blocks": "custom", "custom_blocks": "10-16"}, "this model has 16 attention blocks, 0 to 15"),
        ({"blocks": "custom"}, "custom_blocks is empty"),
        ({"clip": None}, "clip is empty"),
    ],
)
def test_bad_inputs(model, inputs, says):
    with pytest.raises(ValueError, match=says) as caught:
        with_references(model, **inputs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("latent", "says"),
    [
        (torch.zeros(1, 16, 8, 8), "needs 4 channels"),
        (torch.zeros(1, 4, 1, 8, 8), "needs 4 channels"),
        (torch.full((1, 4, 8, 8), math.nan), "--fp32-vae"),
    ],
    ids=["another VAE", "a video VAE", "NaN"],
)
def test_bad_latents(model, latent, says):
    vae = PixelVAE()
    vae.encode = lambda pixels: latent
    with pytest.raises(ValueError, match=says):
        with_references(model, vae=vae)


def test_weights_beyond_20_count_as_20(model):
    patched = with_references(model, weight=1000.0)
    (technique,) = techniques_of(patched)
    assert {row.bias for row in technique.members[0].rows} == {20.0}


def test_an_empty_mask_is_said(model, monkeypatch):
    told = []
    monkeypatch.setattr(reference_rows, "warn_user", told.append)
    thin = torch.zeros(1, 64, 64)
    thin[:, 7] = 1
    patched = with_references(model, references(2, masks=[thin, half_mask()]))
    assert len(told) == 1 and "reference 1: its mask keeps no token on the 4x4, 8x8 grid" in told[0]
    (technique,) = techniques_of(patched)
    assert [row.view.label for row in technique.members[0].rows] == ["reference 2"]


def test_the_picture_goes_through_the_vae_once_in_chain_order(model):
    seen = []
    vae = PixelVAE()
    encode = vae.encode
    vae.encode = lambda pixels: (seen.append(pixels), encode(pixels))[1]
    chain = references(3)
    with_references(model, chain, vae=vae)
    assert all(torch.equal(a, b.image) for a, b in zip(seen, chain, strict=True))


def test_equal_prompts_are_encoded_once_and_the_word_stands_in(model):
    texts = []
    clip = TinyClip(model)
    clip.tokenize = lambda text: (texts.append(text), text)[1]
    chain = ()
    for word, prompt in (("dog", ""), ("cat", "a cat on grass"), ("dog", "")):
        image = torch.rand(2, 64, 64, 3)
        (chain,) = execute(AddReference, image=image, word=word, prompt=prompt, references=chain)
    with_references(model, chain, clip=clip)
    assert texts == ["dog", "a cat on grass"]


def test_sdxl_gets_pooled_text_and_the_size_of_each_reference():
    model = tiny_model("sdxl")
    seen = []
    adm = model.model.encode_adm
    model.model.encode_adm = lambda **values: (seen.append((values["width"], values["height"])), adm(**values))[1]
    patched = with_references(model, references(2, sizes=((16, 16), (9, 20))))
    assert seen == [(128, 128), (160, 72)]
    (technique,) = techniques_of(patched)
    assert all(row.inputs.y.shape == (1, 88) for row in technique.members[0].rows)
