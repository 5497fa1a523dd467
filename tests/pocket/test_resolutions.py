"""Teaching other sizes: the set does in the host's full-width model what it did in the narrow one that learnt."""

import pytest
import resolutions
import torch
from looks import chroma_of_things
from made_up import options, predicted
from safetensors.torch import load_file
from samples import encode
from support.compare import differ
from support.models import execute
from support.resadapter_sets import only_sets_in, put
from support.thorough import few_of
from vocabulary import rows_of
from world import load_things

from pack.nodes.pocket.pocket_model import load_pocket
from pack.nodes.resadapter.resadapter_node import ResAdapter


@pytest.fixture(scope="module")
def learnt(folder):
    """(ResAdapter, its files) after two steps, then made large enough to be seen."""
    with torch.inference_mode(False), torch.enable_grad():
        training = resolutions.train(options(folder, batch=1, rate=0.05, folder=folder, out=folder / "made"))
        moved = [name for name, t in training.network.ups.items() if t.any()]
        assert training.steps == 2 and len(moved) == len(resolutions.SAMPLERS)
        generator = torch.Generator().manual_seed(1)
        for t in training.network.ups.values():
            t.data.copy_(torch.randn(t.shape, generator=generator).half() * 0.1)
        for t in training.network.norms.values():
            t.data.mul_(1.3)
        files = training.network.files()
        assert {path.name: load_file(path).keys() for path in (folder / "made" / resolutions.SET).iterdir()} == {
            name: tensors.keys() for name, tensors in files.items()
        }
    return training.network, files


@pytest.mark.slow
@pytest.mark.parametrize("size", [(16, 16), (8, 24)])
def test_the_host_does_what_the_narrow_network_does(learnt, folder, monkeypatch, tmp_path, size):
    network, files = learnt
    model, clip, _ = load_pocket(folder)
    text = "a dog on a blue background"
    with only_sets_in(tmp_path / "resadapter", monkeypatch):
        put(tmp_path / "resadapter" / "pocket", **files)
        patched, said = execute(ResAdapter, model=model, adapter_set="pocket", alpha=1.0)
        found = predicted(patched, encode(clip, text), size)
    assert "6" in said and "88" in said
    expected = network(found.x[:1], torch.tensor([999]), rows_of(text)[None])
    assert differ(found.cond, expected) < 2e-3
    assert differ(predicted(model, encode(clip, text), size).cond, expected) > 0.05


@pytest.mark.parametrize("step", few_of(range(len(resolutions.SIDES)), 0))
def test_each_size_is_learnt_with_as_many_pixels(folder, step):
    things = load_things(folder / "things.npz")
    with torch.inference_mode(False):
        vae = resolutions.load_autoencoder(folder / "autoencoder.safetensors")
        latents, rows, _ = resolutions.batch_of(step, 4, things, chroma_of_things(things), vae)
    side = resolutions.SIDES[step]
    assert latents.shape[1:] == (4, side // 8, side // 8) and len(rows) == len(latents)
    assert len(latents) == max(1, round(4 * 128**2 / side**2))
