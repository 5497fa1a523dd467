"""Find Concepts: the things in a picture, each with a mask."""

import pytest
import torch
import torch.nn.functional as F
from support.clips import tiny_clip
from support.models import execute, tiny_model
from support.references import PixelVAE

from pack.nodes.host.blocks import attention_blocks
from pack.nodes.host.calls import bare_forward, clean_options, with_replacements
from pack.nodes.masks import find_concepts as module
from pack.nodes.masks.concept_maps import concept_maps
from pack.nodes.masks.find_concepts_node import FindConcepts
from pack.nodes.pocket.pocket_model import load_pocket


@pytest.fixture(scope="module")
def model():
    made = tiny_model()
    # pictures of 256 pixels are enough
    made.model.native_side = 64
    return made


def found(image, model, **inputs):
    return execute(FindConcepts, model=model, clip=tiny_clip(), vae=PixelVAE(), image=image, **inputs)


def test_two_things_on_a_plain_ground():
    """A picture of the pocket model's own kind."""
    model, clip, vae = load_pocket()
    image = torch.full((1, 128, 128, 3), 0.4)
    image[:, 30:80, 10:50] = torch.tensor([0.9, 0.2, 0.1])
    image[:, 50:110, 75:118] = torch.tensor([0.95, 0.9, 0.2])
    masks, picture, count = execute(FindConcepts, model=model, clip=clip, vae=vae, image=image, least=20)
    assert masks.shape == (count, 128, 128) and picture.shape == image.shape and count >= 2
    assert set(masks.unique().tolist()) == {0.0, 1.0} and masks.sum(0).max() == 1
    # each thing is in a mask of its own
    owners = [int(masks[:, row, column].argmax()) for row, column in ((55, 30), (80, 96))]
    assert owners[0] != owners[1] and all(masks[:, row, column].any() for row, column in ((55, 30), (80, 96)))
    # and most of the ground in none
    assert masks.sum() < 0.6 * masks[0].numel()


def slow_looks(calls, grid):
    """The weighted mean of all self-attentions, each brought to the grid, by their formula."""
    total = torch.zeros(grid[0] * grid[1], grid[0] * grid[1])
    for q, k, heads, own in calls:
        q, k = (t[0].unflatten(-1, (heads, -1)).movedim(1, 0) for t in (q, k))
        mean = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1).mean(0)
        keys = F.interpolate(mean.unflatten(1, own)[:, None], size=grid, mode="bilinear").flatten(1)
        rows = [
            keys[(row * own[0] // grid[0]) * own[1] + column * own[1] // grid[1]]
            for row in range(grid[0])
            for column in range(grid[1])
        ]
        total += own[0] / grid[0] * torch.stack(rows)
    return total / total.sum(1, keepdim=True)


def test_maps_by_their_formula(model):
    latent = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    text = torch.randn(1, 77, 32, generator=torch.Generator().manual_seed(1))
    maps = concept_maps(model, latent, (text, {}), (16, 16))
    calls, ends = [], []

    def split(t, options):
        return t.unflatten(-1, (options["n_heads"], -1)).transpose(1, 2)

    def attend(q, k, v, options):
        out = torch.nn.functional.scaled_dot_product_attention(*(split(t, options) for t in (q, k, v)))
        return out.transpose(1, 2).flatten(2)

    def looking(q, k, v, options):
        calls.append((q, k, options["n_heads"], tuple(options["activations_shape"][-2:])))
        return attend(q, k, v, options)

    def reading(q, k, v, options):
        scores = split(q, options) @ split(k, options).mT / (q.shape[-1] // options["n_heads"]) ** 0.5
        ends.append(scores.softmax(-1).mean(1)[0, :, 1].unflatten(0, (4, 4)))
        return attend(q, k, v, options)

    unet = model.model.diffusion_model
    blocks = attention_blocks(unet)
    replacing = {("attn1", key): lambda standing: looking for key in blocks}
    quarter = [key for key, level in blocks.items() if level == 2 and key[0] != "middle"]
    replacing |= {("attn2", key): lambda standing: reading for key in quarter}
    options = with_replacements(clean_options(0.03), replacing)
    bare_forward(model.model)(latent, torch.zeros(1), text, None, None, options)
    assert len(calls) == 16 and len(ends) == 5
    torch.testing.assert_close(maps.looks, slow_looks(calls, (16, 16)), rtol=1e-3, atol=1e-6)
    end = F.interpolate(torch.stack(ends).mean(0)[None, None], size=(16, 16), mode="bilinear")[0, 0]
    torch.testing.assert_close(maps.saliency, (end - end.min()) / (end.max() - end.min()), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("size", [(64, 192), (100, 70)])
def test_masks_have_the_size_of_the_picture(model, size):
    image = torch.rand(1, *size, 3, generator=torch.Generator().manual_seed(0))
    masks, picture, count = found(image, model, max_side=16)
    assert masks.shape == (count, *size) and picture.shape == (1, *size, 3)


def test_pictures_that_cannot_be_cut(model, monkeypatch):
    with pytest.raises(ValueError, match="image is 63x70 pixels; connect a picture of at least 64x64"):
        found(torch.rand(1, 70, 63, 3), model)
    said = []
    monkeypatch.setattr(module, "warn_user", said.append)
    found(torch.rand(2, 64, 64, 3, generator=torch.Generator().manual_seed(0)), model, max_side=8)
    assert said == ["image is a batch of 2 pictures; the first one is used"]
    monkeypatch.setattr(module, "found_concepts", lambda *args: [])
    with pytest.raises(ValueError, match="nothing stands out in this picture"):
        found(torch.rand(1, 64, 64, 3), model, max_side=8)
