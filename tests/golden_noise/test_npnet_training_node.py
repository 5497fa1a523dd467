"""Collecting noise pairs and training on them: restarts end where an unbroken run does, and a lesson is learnt."""

import os

import comfy.model_management
import pytest
import torch
from safetensors.torch import load_file
from support.models import conditioning, execute, tiny_model
from support.noise_pairs import collect, learn, make_pairs
from support.npnets import small_weights
from support.references import draw

from pack.nodes.files import training_state
from pack.nodes.files.new_files import write_tensors
from pack.nodes.golden_noise import npnet_training
from pack.nodes.golden_noise.npnet_file import net_from
from pack.nodes.golden_noise.npnet_node import NPNetLoader
from pack.nodes.golden_noise.npnet_training_node import NoisePairs, TrainNPNet
from pack.nodes.golden_noise.redenoise_node import Redenoise

pytestmark = pytest.mark.usefixtures("folders")


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.mark.parametrize("which", ["positive", "negative"])
@pytest.mark.parametrize("empty", [[], conditioning(None), conditioning(torch.zeros(1, 0, 32))], ids=len)
def test_an_empty_prompt_is_said_before_anything_is_written(model, folders, which, empty):
    text = conditioning(draw(1, 77, 32, seed=1))
    texts = {"positive": text, "negative": text, which: empty}
    with pytest.raises(ValueError, match=f"{which} is empty; connect a CLIP Text Encode"):
        execute(NoisePairs, model=model, width=64, height=64, **texts)
    assert not list((folders / "output").iterdir())
    with pytest.raises(ValueError, match=f"{which} is empty; connect a CLIP Text Encode"):
        execute(Redenoise, noise=None, model=model, **texts)


def test_pairs_are_redenoised_noise_and_kept(model, folders):
    folder, texts = collect(model)
    files = sorted((folders / "output" / folder).glob("pair_*"))
    assert len(files) == 3
    pair = load_file(files[1])
    drawn = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(pair["noise"], drawn)

    class Drawn:
        seed = 1

        def generate_noise(self, latent):
            return drawn.clone()

    (noise,) = execute(Redenoise, noise=Drawn(), model=model, positive=texts[0], negative=texts[1])
    assert torch.equal(pair["golden"], noise.generate_noise({"samples": torch.zeros(1, 4, 8, 8)}))
    stamps = [file.stat().st_mtime_ns for file in files]
    collect(model, count=4)
    assert [file.stat().st_mtime_ns for file in files] == stamps
    assert len(list((folders / "output" / folder).glob("pair_*"))) == 4
    collect(model, count=1, prompt=2)
    assert len(list((folders / "output" / folder).glob("prompt_*"))) == 2
    assert not list((folders / "output" / folder).glob("*.part"))


def test_each_negative_and_each_setting_has_pairs_of_its_own(model, folders):
    """What changes the golden noise is in a pair's name: none is taken for another's."""
    positive, first, second = (conditioning(draw(1, 77, 32, seed=seed)) for seed in (1, 8, 9))
    inputs = {"model": model, "positive": positive, "count": 1, "seed": 0, "width": 64, "height": 64}
    golden = []
    for own in (
        {"negative": first},
        {"negative": second},
        {"negative": first, "guidance": 3.0},
        {"negative": first, "inverse_guidance": 2.0},
        {"negative": first, "steps": 10},
        {"negative": first, "positive": positive + conditioning(draw(1, 77, 32, seed=7))},
        {"negative": first, "positive": conditioning(positive[0][0], area=(4, 8, 0, 0))},
        {"negative": conditioning(first[0][0], area=(8, 4, 0, 0))},
    ):
        (name,) = execute(NoisePairs, **{**inputs, **own})
        files = {path: load_file(path)["golden"] for path in (folders / "output" / name).glob("pair_*")}
        assert len(files) == len(golden) + 1
        (new,) = [found for found in files.values() if not any(torch.equal(found, one) for one in golden)]
        golden.append(new)


def test_a_lesson_is_learnt(folders):
    folder = folders / "output" / "npnet_pairs"
    folder.mkdir()
    write_tensors(folder / "prompt_a.safetensors", {"prompt": draw(1, 77, 32)})
    for i in range(12):
        noise = draw(1, 4, 8, 8, seed=i)
        write_tensors(folder / f"pair_a_{i:02}.safetensors", {"noise": noise, "golden": noise + 0.3})
    net, report = learn(30, learning_rate=1e-2, batch_size=4)
    before, after = (float(part) for part in report.split("held out ")[1].split(" -> "))
    assert after < 0.8 * before and "30 steps, 11 pairs" in report
    found = execute(NPNetLoader, npnet_file="mine.safetensors")[0]
    assert all(torch.equal(found.weights[key], t) for key, t in net.weights.items())
    assert not any(t.requires_grad for t in net.weights.values())


def test_an_interrupted_training_ends_as_an_unbroken_one(model, monkeypatch):
    collect(model)
    whole, _ = learn(4, "whole")
    calls = []

    def interrupt():
        calls.append(1)
        if len(calls) == 3:
            raise comfy.model_management.InterruptProcessingException

    with monkeypatch.context() as during:
        during.setattr(comfy.model_management, "throw_exception_if_processing_interrupted", interrupt)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            learn(4, "broken")
    resumed, _ = learn(4, "broken")
    assert all(torch.equal(resumed.weights[key], t) for key, t in whole.weights.items())
    other, _ = learn(4, "broken", learning_rate=2e-3)
    assert not torch.equal(other.weights["alpha"], whole.weights["alpha"])


def test_what_is_learnt_is_written_now_and_then(model, monkeypatch):
    """A machine that is switched off gives no time to write."""
    collect(model)
    monkeypatch.setattr(npnet_training, "SAVE_EVERY", 2)
    real, written = training_state.TrainingState._write, []
    monkeypatch.setattr(
        training_state.TrainingState, "_write", lambda state, done: (written.append(done), real(state, done))[1]
    )
    learn(5)
    assert written == [2, 4, 5]


def test_it_starts_from_a_network_of_another_size(model):
    collect(model, count=2)
    start = net_from(small_weights(side=16, prompt=32), "start")
    net, _ = learn(1, learning_rate=1e-8, npnet=start)
    assert net.sizes.side == 8
    key = "unet_embedding.swin.layers.0.blocks.0.attn.qkv.weight"
    torch.testing.assert_close(net.weights[key], start.weights[key], atol=1e-6, rtol=0)


def test_the_host_runs_them_again_when_files_change(folders):
    folder = make_pairs()
    inputs = {"folder": "npnet_pairs", "file_name": "mine"}

    def stamps():
        return NoisePairs.fingerprint_inputs(**inputs), TrainNPNet.fingerprint_inputs(**inputs)

    before = stamps()
    (folder / "mine.training").write_bytes(b"a state")
    assert stamps() == before
    write_tensors(folder / "prompt_b.safetensors", {"prompt": draw(1, 77, 32)})
    prompt = stamps()
    assert prompt[0] == before[0] and prompt[1] != before[1]
    (folders / "npnet").mkdir()
    (folders / "npnet" / "mine.safetensors").write_bytes(b"a network")
    network = stamps()
    assert network[0] == before[0] and network[1] not in (before[1], prompt[1])
    (folder / "pair_a_01.safetensors").unlink()
    gone = stamps()
    os.utime(folder / "pair_a_00.safetensors", ns=(1, 1))
    assert all(len(set(found)) == 3 for found in zip(network, gone, stamps(), strict=True))


@pytest.mark.parametrize("node", [NoisePairs, TrainNPNet])
@pytest.mark.parametrize("name", ["../out", "", "nowhere"])
def test_a_folder_that_is_not_there_or_linked_has_one_stamp(node, name, folders):
    linked = node.fingerprint_inputs(folder=None, file_name=None)
    make_pairs()
    (folders / "npnet").mkdir()
    (folders / "npnet" / "mine.safetensors").write_bytes(b"a network")
    assert linked == node.fingerprint_inputs(folder=None, file_name="mine")
    assert linked == node.fingerprint_inputs(folder=name, file_name="a/b")


def test_bad_inputs(model):
    with pytest.raises(ValueError, match="contains no noise pairs"):
        learn(1)
    for name in ("../out", "", "/tmp"):
        with pytest.raises(ValueError, match="inside ComfyUI's output folder"):
            execute(TrainNPNet, folder=name)
    collect(model, count=1)
    for name in ("a/b", "..", "x.pth", ""):
        with pytest.raises(ValueError, match="enter a bare name"):
            learn(1, name)
    wide = net_from(small_weights(prompt=16), "wide")
    with pytest.raises(ValueError, match="prompts are 32 wide"):
        learn(1, npnet=wide)
    collect(model, count=1, width=128, height=128)
    with pytest.raises(ValueError, match="several sizes"):
        learn(1)
