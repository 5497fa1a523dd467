"""Teaching pictures: the file does in the host's full-width model what it did in the narrow one that learnt."""

import image_adapter
import pytest
import torch
import vision
from companions import VISION_FILE, load_vision
from free import FULL, held_out
from looks import chroma_of_things
from made_up import options, predicted
from safetensors.torch import load_file
from samples import encode
from support.compare import differ
from support.models import execute
from support.thorough import few_of
from things import KNOWN, WORDS
from tints import tinted
from vocabulary import rows_of
from world import load_things, portrait

from pack.nodes.image_adapters.image_adapter import adapter_from
from pack.nodes.image_adapters.image_tokens import cut_out, squared
from pack.nodes.image_prompts.mip_adapter_node import MIPAdapter
from pack.nodes.pocket.pocket_model import load_pocket
from pack.nodes.references.references_node import AddReference

SHOWN = ("dog", "pizza")


@pytest.fixture(scope="module")
def folder(folder):
    """The pocket model with an image encoder of random weights."""
    with torch.inference_mode(False):
        torch.manual_seed(0)
        vision.save(vision.Namer().encoder, folder / VISION_FILE)
    return folder


@pytest.fixture(scope="module", params=image_adapter.KINDS)
def taught(request, folder):
    """(kind, network after two steps, then made large enough to be seen)"""
    with torch.inference_mode(False), torch.enable_grad():
        before = image_adapter.ImageAdapter(request.param, image_adapter.load_denoiser(folder)).tensors()
        said = {"kind": request.param, "folder": folder, "out": folder, "batch": 2}
        training = image_adapter.train(options(folder, rate=0.05, **said))
        network = training.network
        after = load_file(folder / image_adapter.file_of(request.param))
        assert training.steps == 2 and before.keys() == after.keys()
        moved = [name for name in after if not torch.equal(after[name], before[name])]
        assert len(moved) > 0.9 * len(after)
        generator = torch.Generator().manual_seed(1)
        for t in (*network.values, *network.gates):
            t.data.copy_(torch.randn(t.shape, generator=generator).half() * 0.2)
        for t in network.parameters():
            t.data.copy_(t.data.half())
    return request.param, network


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_the_host_does_what_the_narrow_network_does(taught, folder, count):
    kind, network = taught
    model, clip, _ = load_pocket(folder)
    eyes, things = load_vision(folder / VISION_FILE), load_things(folder / "things.npz")
    text, chain, embeds = "a dog and a pizza on a blue background", (), []
    for word in SHOWN[:count]:
        picture, mask, _ = portrait(word, things, turn=1.0)
        (chain,) = execute(AddReference, image=picture, mask=mask, references=chain, word=word)
        embeds.append(eyes.encode_image(squared(cut_out(picture[0], mask[0], word))).image_embeds)
    inputs = {"model": model, "clip": clip, "clip_vision": eyes, "references": chain, "scale": 1.0}
    merge = "joint" if kind == "ip" else "weighted"
    adapter = adapter_from(network.tensors(), "made")
    (patched,) = execute(MIPAdapter, adapter=adapter, merge=merge, **inputs)
    found = predicted(patched, encode(clip, text))
    words = torch.stack([rows_of(word) for word in SHOWN[:count]])[None]
    batch = (rows_of(text)[None], torch.stack(embeds, 1).float(), words)
    expected = network(found.x[:1], torch.tensor([999]), batch)
    assert differ(found.cond, expected) < 3e-3
    assert differ(predicted(model, encode(clip, text)).cond, expected) > 0.05


@pytest.mark.parametrize("number", few_of(range(4), 1))
@pytest.mark.parametrize("kind", image_adapter.KINDS)
def test_each_thing_has_its_own_reference(folder, kind, number):
    things = tinted(load_things(folder / "things.npz"))
    own = chroma_of_things(things)
    # an embedding that says which thing and hue it stands for
    which = torch.arange(len(WORDS)), torch.arange(image_adapter.HUES)
    table = torch.stack(torch.meshgrid(*which, indexing="ij"), -1).float()
    with torch.inference_mode(False):
        vae = image_adapter.load_autoencoder(folder / "autoencoder.safetensors")
        latents, (rows, embeds, words), _ = image_adapter.batch_of(number, 3, kind, table, things, own, vae)
    references = 2 if kind == "mip" and number % 4 else 1
    assert latents.shape == (3, 4, 16, 16) and rows.shape == (3, 77)
    assert embeds.shape == (3, references, 2) and words.shape == (3, references, 77)
    shown = [[WORDS[int(t)] for t in row] for row in embeds[..., 0].tolist()]
    for i, row in enumerate(shown):
        if embeds[i].any():
            assert set(row) <= set(KNOWN)
            assert [words[i, k].tolist() for k in range(references)] == [rows_of(word).tolist() for word in row]
            thing, hue = embeds[i].long().unbind(-1)
            assert not held_out(thing, hue * FULL / image_adapter.HUES).any()


def test_a_mip_adapter_begins_with_what_the_ip_adapter_learnt(folder):
    with torch.inference_mode(False):
        denoiser = image_adapter.load_denoiser(folder)
        torch.manual_seed(5)
        ip = image_adapter.ImageAdapter("ip", denoiser)
        image_adapter.save_file(ip.tensors(), folder / "begin.safetensors")
        mip = image_adapter.ImageAdapter("mip", denoiser)
        mip.read(folder / "begin.safetensors")
    made = mip.tensors()
    assert all(torch.equal(made[name], t) for name, t in ip.tensors().items())
    assert not any(t.any() for name, t in made.items() if "text_to_weight" in name)
