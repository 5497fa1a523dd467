"""Teaching a concept: its files do in the host's full-width model what they did in the narrow one that learnt."""

import autoencoder
import comfy.sd
import concept
import pytest
import torch
from looks import chroma_of_things
from made_up import options, predicted
from safetensors.torch import load_file, save_file
from samples import encode
from support.compare import differ
from support.edloras import only_loras_in
from support.models import execute
from things import WORDS
from vocabulary import UNKNOWN, rows_of
from world import load_things

from pack.nodes.pocket.pocket_model import load_pocket
from pack.nodes.text_contexts.edlora_node import EDLoRALoader


@pytest.fixture(scope="module", params=concept.KINDS)
def taught(request, folder):
    """(kind, path of the file, Concept, names of what two steps moved); then made large enough to be seen."""
    kind = request.param
    with torch.inference_mode(False), torch.enable_grad():
        said = {"word": "owl", "kind": kind, "folder": folder, "out": folder / "made", "pictures": 6}
        training = concept.train(options(folder, rate=0.05, hue=None, blocks="all", **said))
        path = folder / "made" / "loras" / f"owl_{kind}.safetensors"
        assert training.steps == 2 and load_file(path).keys() == training.network.tensors().keys()
        moved = [name for name, t in training.network.ups.items() if t.any()]
        for t in training.network.ups.values():
            torch.nn.init.normal_(t, std=0.2)
        save_file(training.network.tensors(), path)
    return kind, path, training.network, moved


@pytest.mark.slow
def test_only_the_concept_learns(taught):
    kind, _, network, moved = taught
    assert len(moved) > 0.9 * len(network.ups)
    assert any("text_encoder" in name for name in moved) == (kind == "edlora")
    assert not any(name.startswith("frozen") or "denoiser" in name for name in network.state_dict())


@pytest.mark.slow
def test_the_host_does_what_the_narrow_network_does(taught, folder, monkeypatch, tmp_path):
    kind, path, network, _ = taught
    model, clip, _ = load_pocket(folder)
    text = f"an {network.named} on a blue background"
    with only_loras_in(tmp_path / "loras", monkeypatch):
        (tmp_path / "loras" / path.name).write_bytes(path.read_bytes())
        if kind == "lora":
            patched, taught_clip = comfy.sd.load_lora_for_models(model, clip, load_file(path), 1.0, 1.0)
            assert len(patched.patches) == len(network.ups)
        else:
            strengths = {"strength_model": 1.0, "strength_clip": 1.0}
            patched, taught_clip, said = execute(
                EDLoRALoader, model=model, clip=clip, edlora_file=path.name, **strengths
            )
            assert network.named in said
        found = predicted(patched, encode(taught_clip, text))
    expected = network(found.x[:1], torch.tensor([999]), rows_of(text)[None])
    assert differ(found.cond, expected) < 1e-3
    assert differ(predicted(model, encode(clip, text)).cond, expected) > 0.05


@pytest.mark.slow
def test_pictures_show_the_thing_alone(folder):
    things = load_things(folder / "things.npz")
    with torch.inference_mode(False):
        vae = autoencoder.load(folder / "autoencoder.safetensors")
        for named, unknown in (("owl", 1), ("<owl_1> <owl_2>", 2)):
            latents, rows = concept.examples("owl", named, 5, things, vae)
            assert latents.shape == (5, 4, 16, 16) and latents.isfinite().all()
            assert ((rows == UNKNOWN).sum(1) == unknown).all()


@pytest.mark.slow
def test_a_look_turns_the_hues_of_the_same_pictures(folder):
    things = load_things(folder / "things.npz")
    own = chroma_of_things(things)[WORDS.index("car")].angle().rad2deg().round().int().item()
    with torch.inference_mode(False):
        vae = autoencoder.load(folder / "autoencoder.safetensors")
        plain, same, other = (concept.examples("car", "car", 4, things, vae, hue=hue) for hue in (None, own, own + 90))
    assert torch.equal(plain[1], other[1])
    assert differ(same[0], plain[0]) < differ(other[0], plain[0]) / 5 and differ(other[0], plain[0]) > 0.01
