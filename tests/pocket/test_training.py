"""A few steps of each training, one after the other, from pictures to a model that the host loads."""

import autoencoder
import denoiser
import judge
import pytest
import torch
from made_up import blobs, options
from safetensors import safe_open
from samples import draw
from things import WORDS
from training import optimizers_of
from world import draw_scenes, load_things, render

from pack.nodes.pocket.pocket_model import load_pocket


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return blobs(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def trained(cache):
    """(cache, Training of the judge, of the autoencoder, of the denoiser) after two steps each."""
    with torch.inference_mode(False), torch.enable_grad():
        one, accuracy = judge.train(options(cache, weights=cache / "judge.safetensors", batch=8))
        assert set(accuracy) == {"any hues", "own hues"}
        assert all(set(shares) == {"regions", "pictures", "backgrounds"} for shares in accuracy.values())
        files = {"judge": cache / "judge.safetensors", "weights": cache / "autoencoder.safetensors"}
        two, quality = autoencoder.train(options(cache, **files, steps=3))
        assert 0 < quality["l1"] < 1
        files = {"autoencoder": cache / "autoencoder.safetensors", "folder": cache}
        three = denoiser.train(options(cache, **files, pool=16, new=2))
    return cache, one, two, three


@pytest.mark.slow
def test_steps_change_weights_and_are_counted(trained):
    _, one, two, three = trained
    assert (one.steps, two.steps, three.steps) == (2, 3, 2)
    for training in (one, two, three):
        state = torch.load(training.path, weights_only=True)
        moved = [k for k, v in state["network"].items() if not torch.equal(v, state["average"][k])]
        learning = [k for k, p in training.network.named_parameters() if p.requires_grad]
        # what begins as zero keeps what stands behind it still for a step
        assert len(moved) > 0.4 * len(learning)
        assert all(v.isfinite().all() for v in state["average"].values())


@pytest.mark.slow
def test_the_host_draws_with_what_was_trained(trained):
    cache, *_ = trained
    pictures = draw(load_pocket(cache), "a dog on a blue background", [0], steps=2)
    assert pictures.shape == (1, 128, 128, 3) and pictures.isfinite().all()


@pytest.mark.slow
def test_a_training_goes_on_from_its_checkpoint(trained):
    cache, *_ = trained
    before = torch.load(cache / "judge.checkpoint", weights_only=True)
    with torch.inference_mode(False), torch.enable_grad():
        again = judge.Training("judge", judge.Judge(), options(cache))
        assert again.steps == before["steps"]
        for name, value in again.network.state_dict().items():
            assert torch.equal(value, before["network"][name])
        assert again.optimizers[0].state_dict()["state"][0]["step"] == before["steps"]
        assert judge.Training("judge", judge.Judge(), options(cache, fresh=True)).steps == 0


def test_muon_takes_the_large_matrices_inside_and_adamw_the_rest():
    network = denoiser.Denoiser()
    adamw, muon = optimizers_of(network, 1e-3, 0.01, muon=True)
    names = {id(p): name for name, p in network.named_parameters()}
    inside = {names[id(p)] for p in muon.weights}
    outside = {names[id(p)] for group in adamw.param_groups for p in group["params"]}
    assert not inside & outside
    assert inside | outside == {name for name, p in network.named_parameters() if p.requires_grad}
    assert {"unet.input_blocks.0.0.weight", "unet.out.2.weight"} <= outside
    assert not [name for name in inside if "embedding" in name or "norm" in name or name.endswith("bias")]


def test_muon_steps_a_convolution_as_a_matrix():
    with torch.inference_mode(False), torch.enable_grad():
        convolution = torch.nn.Conv2d(64, 80, 3, bias=False).to(memory_format=torch.channels_last)
        alike = torch.nn.Linear(64 * 9, 80, bias=False)
        alike.weight.data.copy_(convolution.weight.data.flatten(1))
        adamw, ours = optimizers_of(convolution, 1e-2, 0.01, muon=True)
        theirs = torch.optim.Muon(alike.parameters(), lr=1e-2, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
        before = convolution.weight.detach().clone()
        for _ in range(3):
            convolution.weight.grad = torch.randn_like(convolution.weight)
            alike.weight.grad = convolution.weight.grad.flatten(1)
            for optimizer in (adamw, ours, theirs):
                optimizer.step()
        assert (convolution.weight - before).abs().mean() > 1e-3
        torch.testing.assert_close(convolution.weight.flatten(1), alike.weight)
        # what it remembers of gradients goes into checkpoints and comes back
        kept = ours.state_dict()
        (memory,) = (state["momentum_buffer"] for state in kept["state"].values())
        other = optimizers_of(convolution, 1e-2, 0.01, muon=True)[1]
        other.load_state_dict(kept)
        assert torch.equal(other.state_dict()["state"][0]["momentum_buffer"], memory) and memory.any()


@pytest.mark.slow
def test_a_training_begins_with_given_weights(trained):
    cache, _, _, three = trained
    with torch.inference_mode(False):
        given = denoiser.load(cache)
    for name, value in given.state_dict().items():
        wanted = three.average[name]
        if name.endswith("token_embedding.weight"):
            # words that nobody knows have no row of their own
            value, wanted = (torch.cat([t[:2], t[3:]]) for t in (value, wanted))
        assert torch.equal(value, wanted.half().float()), name


@pytest.mark.slow
def test_latents_have_unit_variance(trained):
    cache, *_ = trained
    vae = autoencoder.load(cache / "autoencoder.safetensors")
    things = load_things(cache / "things.npz")
    scenes = draw_scenes(64, torch.Generator().manual_seed(9), things=range(len(WORDS)))
    latents = autoencoder.moments(vae, render(scenes, things)[0])[0] * autoencoder.SCALE
    assert latents.mean((0, 2, 3)).abs().max() < 0.3
    assert (latents.std((0, 2, 3)) - 1).abs().max() < 0.3


def test_standardizing_changes_no_picture(cache):
    torch.manual_seed(0)
    with torch.inference_mode(False):
        model = autoencoder.autoencoder().requires_grad_(False).eval()
        pictures = torch.rand(4, 3, 64, 64)
        before = autoencoder.decode(model, autoencoder.moments(model, pictures)[0])
        spread = autoencoder.moments(model, pictures)[1]
        autoencoder.standardize(model, pictures)
        mean, wider = autoencoder.moments(model, pictures)
    torch.testing.assert_close(autoencoder.decode(model, mean), before, atol=1e-4, rtol=1e-4)
    scaled = mean * autoencoder.SCALE
    torch.testing.assert_close(scaled.std((0, 2, 3)), torch.ones(4), atol=1e-3, rtol=0)
    torch.testing.assert_close(scaled.mean((0, 2, 3)), torch.zeros(4), atol=1e-3, rtol=0)
    # the noise on the latents grows with them
    assert (wider - spread).std((0, 2, 3)).max() < 1e-4


@pytest.mark.slow
def test_the_schedule_is_the_hosts(trained):
    model, _, _ = load_pocket(trained[0])
    host = model.get_model_object("model_sampling").sigmas
    bar = denoiser.alphas_bar()
    torch.testing.assert_close(((1 - bar) / bar).sqrt(), host.float(), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_weights_carry_what_the_loader_needs(trained):
    for name, keys in {"unet": {"config", "groups"}, "text_encoder": {"config", "deviation"}}.items():
        with safe_open(trained[0] / f"{name}.safetensors", "pt") as file:
            assert keys <= set(file.metadata())
