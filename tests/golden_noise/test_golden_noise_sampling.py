"""Golden Noise on the host: the KSampler's route, when it acts, and re-denoise on patched models."""

import comfy.model_sampling
import comfy.sample
import comfy.samplers
import pytest
import torch
from comfy_extras.nodes_custom_sampler import SamplerCustomAdvanced
from support.compare import relative
from support.models import conditioning, execute, recording, sample, tiny_model
from support.npnets import small_weights
from support.references import draw, with_references

from nodes import KSampler
from pack.nodes.golden_noise import golden_noise_model as npnet_model
from pack.nodes.golden_noise.golden_noise_node import GoldenNoiseModel, GoldenNoiseNode
from pack.nodes.golden_noise.npnet_file import net_from
from pack.nodes.golden_noise.redenoise_node import Redenoise
from pack.nodes.host import messages

WIDTH = 32


@pytest.fixture(scope="module")
def net():
    return net_from(small_weights(prompt=WIDTH), "small")


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def texts():
    return [conditioning(draw(1, 77, WIDTH, seed=seed)) for seed in (1, 2)]


class Drawn:
    """Random Noise as the host has it."""

    def __init__(self, seed=7):
        self.seed = seed

    def generate_noise(self, latent):
        return comfy.sample.prepare_noise(latent["samples"], self.seed, latent.get("batch_index"))


def with_npnet(model, net, texts, **inputs):
    return execute(GoldenNoiseModel, model=model, npnet=net, conditioning=texts[0], **inputs)[0]


def ksampler(model, texts, latent, seed=7, scheduler="normal", denoise=1.0, steps=2):
    return KSampler().sample(model, seed, steps, 5.0, "euler", scheduler, *texts, latent, denoise)[0]["samples"]


def custom(model, texts, noise, latent, scheduler="normal", steps=2):
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(*texts)
    guider.set_cfg(5.0)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), scheduler, steps)
    arguments = noise, guider, comfy.samplers.ksampler("euler"), sigmas, latent
    if hasattr(SamplerCustomAdvanced, "execute"):
        return SamplerCustomAdvanced.execute(*arguments)[0]["samples"]
    return SamplerCustomAdvanced().sample(*arguments)[0]["samples"]


@pytest.mark.parametrize("scheduler", ["normal", "ddim_uniform"])
@pytest.mark.parametrize(("size", "inputs"), [((8, 8), {}), ((6, 12), {}), ((6, 12), {"size_mode": "resize"})])
def test_both_routes_make_the_same_picture(model, net, texts, scheduler, size, inputs):
    latent = {"samples": torch.zeros(2, 4, *size)}
    golden, _ = execute(GoldenNoiseNode, noise=Drawn(), npnet=net, conditioning=texts[0], **inputs)
    ours = ksampler(with_npnet(model, net, texts, **inputs), texts, latent, scheduler=scheduler)
    theirs = custom(model, texts, golden, latent, scheduler)
    assert torch.equal(ours, theirs)
    assert not torch.allclose(ours, ksampler(model, texts, latent, scheduler=scheduler), atol=1e-2)


def test_runs_repeat_and_the_model_stays_as_it_was(model, net, texts):
    latent = {"samples": torch.zeros(1, 4, 6, 12)}
    before = ksampler(model, texts, latent)
    patched = with_npnet(model, net, texts)
    first = ksampler(patched, texts, latent)
    assert torch.equal(first, ksampler(patched, texts, latent))
    assert torch.equal(before, ksampler(model, texts, latent))
    assert not torch.equal(first, ksampler(patched, texts, latent, seed=8))


@pytest.mark.parametrize("scheduler", ["normal", "ddim_uniform"])
def test_partial_denoise_is_left_alone(model, net, texts, scheduler):
    latent = {"samples": draw(1, 4, 8, 8)}
    patched = with_npnet(model, net, texts)
    for denoise in (0.5, 0.8):
        found = ksampler(patched, texts, latent, scheduler=scheduler, denoise=denoise, steps=4)
        assert torch.equal(found, ksampler(model, texts, latent, scheduler=scheduler, denoise=denoise, steps=4))


def test_no_noise_stays_none(model, net, texts):
    patched, latent = with_npnet(model, net, texts), draw(1, 4, 8, 8)
    zeros = torch.zeros_like(latent)
    run = {"latent": latent, "noise": zeros, "steps": 2}
    assert torch.equal(sample(patched, *texts, **run), sample(model, *texts, **run))

    class Disabled:
        seed = 0

        def generate_noise(self, latent):
            return torch.zeros_like(latent["samples"])

    golden, _ = execute(GoldenNoiseNode, noise=Disabled(), npnet=net, conditioning=texts[0])
    assert not torch.any(golden.generate_noise({"samples": latent}))


def test_a_sampler_that_brings_noise_of_its_own_is_told(model, net, texts, monkeypatch):
    """A node that puts the noise into the latent and has the host add none; a second stage does that rightly."""
    said = []
    monkeypatch.setattr(messages, "_show", said.append)
    patched, noise = with_npnet(model, net, texts), draw(1, 4, 8, 8)
    sampling = model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, "normal", 3)
    for start in (0, 1):
        own = {"noise": torch.zeros_like(noise), "latent": noise * float(sigmas[start]), "sigmas": sigmas[start:]}
        assert torch.equal(sample(patched, *texts, **own), sample(model, *texts, **own))
        assert len(said) == 1 and said[0].startswith("this sampler brings its own noise")
    assert "Golden Noise changes nothing" in said[0]
    sample(patched, *texts, sigmas=sigmas)
    assert len(said) == 1


def test_full_noise_is_told_from_its_schedule():
    sampling = comfy.model_sampling.ModelSamplingDiscrete()
    for scheduler in ("normal", "karras", "exponential", "sgm_uniform", "simple", "ddim_uniform", "beta", "kl_optimal"):
        for steps in (2, 4, 7, 20, 30, 50, 333):
            full = comfy.samplers.calculate_sigmas(sampling, scheduler, steps)
            assert npnet_model.begins_at_full_noise(full, sampling), (scheduler, steps)
            for start in range(1, min(len(full) - 1, 4)):
                # exponential and karras stay near the top for a while with very many steps
                if full[start] < 0.99 * full[0]:
                    assert not npnet_model.begins_at_full_noise(full[start:], sampling), (scheduler, steps, start)


def test_the_last_of_two_acts(model, net, texts):
    latent = {"samples": torch.zeros(1, 4, 8, 8)}
    twice = with_npnet(with_npnet(model, net, texts, strength=0.3), net, texts)
    assert torch.equal(ksampler(twice, texts, latent), ksampler(with_npnet(model, net, texts), texts, latent))


@pytest.mark.parametrize("numbers", [[2], [3, 1], [1, 1]], ids=str)
def test_pictures_taken_out_of_a_batch_are_as_in_it(model, net, texts, monkeypatch, numbers):
    """The host draws the noise of Latent From Batch by the pictures' numbers, at the network's size too."""
    told = []
    monkeypatch.setattr(npnet_model, "warn_user", told.append)
    ours = with_npnet(model, net, texts, size_mode="resize")
    whole = sample(ours, *texts, latent=(4, 4, 6, 12), seed=5, steps=1)
    latent = torch.zeros(len(numbers), 4, 6, 12)
    noise = comfy.sample.prepare_noise(latent, 5, numbers)
    found = sample(ours, *texts, latent=latent, noise=noise, seed=5, steps=1)
    assert not told and relative(found, whole[numbers]) < 1e-3


def test_resize_needs_the_seeds_own_noise(model, net, texts, monkeypatch):
    told = []
    monkeypatch.setattr(npnet_model, "warn_user", told.append)
    noise = draw(1, 4, 6, 12, seed=99)
    run = {"latent": (1, 4, 6, 12), "noise": noise, "steps": 2}
    resized = sample(with_npnet(model, net, texts, size_mode="resize"), *texts, **run)
    assert torch.equal(resized, sample(with_npnet(model, net, texts), *texts, **run))
    assert len(told) == 1


def test_other_models_are_refused(net, texts):
    model = tiny_model().clone()

    class Wide:
        latent_channels = 16

    model.model.latent_format = Wide()
    with pytest.raises(ValueError, match="has 16; connect an SDXL"):
        with_npnet(model, net, texts)


def test_it_stacks_with_references_in_any_order(model, net, texts):
    latent = {"samples": torch.zeros(1, 4, 8, 8)}
    both = ksampler(with_references(with_npnet(model, net, texts)), texts, latent)
    assert torch.equal(both, ksampler(with_npnet(with_references(model), net, texts), texts, latent))
    golden, _ = execute(GoldenNoiseNode, noise=Drawn(), npnet=net, conditioning=texts[0])
    assert torch.equal(both, custom(with_references(model), texts, golden, latent))


# re-denoise


def redenoised(model, texts, latent, **inputs):
    (noise,) = execute(Redenoise, noise=Drawn(), model=model, positive=texts[0], negative=texts[1], **inputs)
    return noise.generate_noise({"samples": latent})


@pytest.mark.parametrize("model_type", [None, comfy.model_base.ModelType.V_PREDICTION])
def test_redenoise_is_two_ddim_steps_of_the_model(texts, model_type):
    """By hand, from what the UNet says at the two levels, in variance-preserving units."""
    model = tiny_model(model_type=model_type)
    latent = torch.zeros(2, 4, 9, 15)
    recorded, recorder = recording(model)
    found = redenoised(recorded, texts, latent, guidance=4.0, steps=20)
    assert [call.x.shape[0] for call in recorder.calls] == [4, 2]

    sampling = model.get_model_object("model_sampling")
    s0, s1 = comfy.samplers.calculate_sigmas(sampling, "ddim_uniform", 20)[:2].tolist()
    first, back = recorder.calls
    noise = Drawn().generate_noise({"samples": latent})

    def eps(out, x):
        # v = a eps - b x0 and x = a x0 + b eps, with a, b the parts of picture and noise
        a, b = 1 / (1 + x[1] ** 2) ** 0.5, x[1] / (1 + x[1] ** 2) ** 0.5
        return out if model_type is None else a * out + b * x[0]

    there = eps(first.uncond + 4 * (first.cond - first.uncond), (noise, s0))
    a0, a1 = (1 / (1 + s**2) ** 0.5 for s in (s0, s1))
    x1 = a1 * (noise - s0 * a0 * there) / a0 + s1 * a1 * there
    torch.testing.assert_close(back.x[:2], x1, atol=1e-5, rtol=0)
    home = eps(back.cond, (x1, s1))
    expected = a0 * (x1 - s1 * a1 * home) / a1 + s0 * a0 * home
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_redenoise_sees_patches_and_repeats(model, texts):
    latent = torch.zeros(1, 4, 8, 8)
    plain = redenoised(model, texts, latent)
    assert torch.equal(plain, redenoised(model, texts, latent))
    patched = model.clone()
    key = next(key for key in model.model.state_dict() if key.endswith("attn2.to_out.0.weight"))
    patched.add_patches({key: ("diff", (torch.ones_like(model.model.state_dict()[key]),))}, 1.0)
    assert not torch.allclose(plain, redenoised(patched, texts, latent), atol=1e-4)
    twice = redenoised(model, texts, latent, repeats=2)

    class Once:
        seed = 7

        def generate_noise(self, latent):
            return plain

    (noise,) = execute(Redenoise, noise=Once(), model=model, positive=texts[0], negative=texts[1])
    assert torch.equal(twice, noise.generate_noise({"samples": latent}))


def test_redenoise_of_equal_guidance_changes_little(model, texts):
    latent = torch.zeros(1, 4, 8, 8)
    noise = Drawn().generate_noise({"samples": latent})
    same = redenoised(model, texts, latent, guidance=1.0) - noise
    strong = redenoised(model, texts, latent, guidance=8.0) - noise
    assert same.norm() < strong.norm() and same.norm() < 0.1 * noise.norm()


def test_redenoise_starts_from_the_noise_it_gets(model, net, texts):
    """A MODEL that carries Golden Noise too does not improve the noise on the way."""
    latent = torch.zeros(1, 4, 8, 8)
    patched = with_npnet(model, net, texts)
    for steps in (50, 1000):
        assert torch.equal(
            redenoised(patched, texts, latent, steps=steps), redenoised(model, texts, latent, steps=steps)
        )


def test_redenoise_feeds_the_sampler(model, texts):
    latent = {"samples": torch.zeros(1, 4, 8, 12)}
    (noise,) = execute(Redenoise, noise=Drawn(), model=model, positive=texts[0], negative=texts[1])
    found = custom(model, texts, noise, latent)
    assert found.shape == (1, 4, 8, 12) and torch.isfinite(found).all()
    assert not torch.equal(found, custom(model, texts, Drawn(), latent))
