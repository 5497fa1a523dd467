"""The companions that are kept: the host and the pack's nodes read them, and they do what they were trained for.

What each technique makes of them, in 200 pictures, says tests/bench/effect_*.py.
"""

import math

import judge
import pytest
import sight
import torch
from companions import FOLDER
from looks import apart, turned
from pictures import read
from questions import seen, singles
from samples import draw
from support.models import execute

from pack.nodes.golden_noise.npnet_node import NPNetLoader
from pack.nodes.image_adapters.image_adapter_node import ImageAdapterLoader
from pack.nodes.pocket.pocket_model import load_pocket
from pack.nodes.pocket.pocket_node import PocketLoRA, PocketVision
from pack.nodes.resadapter.resadapter_node import ResAdapter
from pack.nodes.text_contexts.edlora_node import EDLoRALoader
from pack.nodes.text_contexts.varying_words_node import NeTILoader
from pack.nodes.weight_deltas.weight_deltas_node import CustomDiffusionLoader, KronALoader

# megabytes of all companions together
ROOM = 15
KINDS = {"clip_vision", "embeddings", "ipadapter", "loras", "npnet", "resadapter"}


def test_they_are_small():
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert {path.relative_to(FOLDER).parts[0] for path in files} == KINDS
    assert sum(path.stat().st_size for path in files) <= ROOM * 10**6


def shows(thing, parts, word, count=4):
    """In how many pictures of a thing, called by this word, the judge sees it."""
    sees, found = judge.load(), 0
    for question in singles(count, seed=5, things=(thing,)):
        picture = draw(parts, question.prompt({thing: word}), [question.seed], steps=12)
        found += thing in seen(picture, sees)[0][0]
    return found


@pytest.mark.slow
def test_the_lora_brings_its_thing():
    model, clip, vae = load_pocket()
    (taught,) = execute(PocketLoRA, model=model, lora="lion", strength=1.0)
    assert shows("lion", (taught, clip, vae), "lion") >= 3
    assert shows("lion", (model, clip, vae), "lion") == 0


@pytest.mark.slow
def test_the_ed_lora_brings_its_thing():
    model, clip, vae = load_pocket()
    inputs = {"edlora_file": "pocket: lion_edlora", "strength_model": 1.0, "strength_clip": 1.0}
    model, clip, words = execute(EDLoRALoader, model=model, clip=clip, **inputs)
    assert shows("lion", (model, clip, vae), words) >= 3


def off_its_look(parts, called, count=8):
    """How far the hues of frogs, called so, lie from the one that was taught, in degrees, on average."""
    sees, hues = judge.load(), []
    for question in singles(count, seed=5, things=("frog",)):
        picture = draw(parts, question.prompt({"frog": called}), [question.seed], steps=12, cfg=3.0)[0].float()
        found = sight.sightings(picture, sees.look(picture.movedim(-1, 0)[None]))
        assert "frog" in found
        hues.append(found["frog"].hue)
    return math.degrees(sum(apart(hue, math.radians(330)) for hue in hues) / count)


@pytest.mark.slow
def test_each_kind_of_file_brings_its_look():
    model, clip, vae = load_pocket()
    (krona, _) = execute(KronALoader, model=model, krona_file="pocket: frog_krona", strength=1.0)
    assert off_its_look((krona, clip, vae), "frog") < 20
    delta = {"delta_file": "pocket: frog_custom_diffusion", "strength": 1.0}
    changed, reads, word = execute(CustomDiffusionLoader, model=model, clip=clip, words="", **delta)
    assert off_its_look((changed, reads, vae), f"{word} frog") < 20
    # a word alone, which changes no weight, comes a part of the way
    varied, reads, word = execute(NeTILoader, model=model, clip=clip, mapper_file="pocket: frog_neti", truncation=128)
    assert off_its_look((varied, reads, vae), word) < 45
    assert off_its_look((model, clip, vae), "frog") > 60


def test_the_image_encoder_tells_things_and_hues():
    pictures, shown = read()
    (eyes,) = execute(PocketVision)
    names = [one["things"][0] for one in shown if len(one["things"]) == 1]
    alone = pictures[[i for i, one in enumerate(shown) if len(one["things"]) == 1]]
    mirrored = alone.flip(3)
    opaque = torch.cat([alone, torch.ones_like(alone[:, :1])], 1)
    other = turned(opaque, torch.full((len(alone),), 2.0))[:, :3]
    same, flipped, hued = (
        torch.nn.functional.normalize(eyes.encode_image(p.movedim(1, -1)).image_embeds.float(), dim=-1)
        for p in (alone, mirrored, other)
    )
    alike = same @ flipped.T
    assert len(names) >= 5 and (alike.argmax(1) == torch.arange(len(names))).all()
    assert ((same * hued).sum(1) < alike.diagonal()).all()


def test_the_resadapter_set_fits():
    _, said = execute(ResAdapter, model=load_pocket()[0], adapter_set="pocket: resadapter", alpha=1.0)
    assert "6" in said and "88" in said


@pytest.mark.parametrize("kind", ["ip", "mip"])
def test_the_image_adapters_load(kind):
    (adapter,) = execute(ImageAdapterLoader, adapter_file=f"pocket: {kind}_adapter")
    assert adapter is not None


def test_the_npnet_loads():
    (net,) = execute(NPNetLoader, npnet_file="pocket: npnet")
    assert (net.sizes.side, net.sizes.prompt) == (16, 768)


def test_a_lora_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="choose one of .*lion"):
        execute(PocketLoRA, model=load_pocket()[0], lora="../unet", strength=1.0)
