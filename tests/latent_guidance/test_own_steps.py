"""Guidance moves the latent that a sampler goes on from, in each step, with every sampler of the host."""

import comfy.samplers
import pytest
import torch
from support.compare import differ
from support.concepts import conducted
from support.models import sample, tiny_model
from support.references import prompt
from support.thorough import few_of

from pack.nodes.concept_conductor import layout_steps
from pack.nodes.latent_guidance.own_steps import OwnSteps, own_steps_of

STEPS = 6
# They show the model a copy of their latent, or find their steps only as they go.
OFF = {"uni_pc", "uni_pc_bh2", "dpm_adaptive"}
# It takes longer steps than its schedule says.
COARSE = {"dpm_fast": 3}
# Their callback is given the latent that the run began with.
STALE = {"ipndm", "ipndm_v", "deis"}


@pytest.fixture(scope="module")
def model():
    return tiny_model("sd15")


@pytest.fixture
def moved(monkeypatch):
    """The latents of the guided evaluations, in order; no gradient is computed, and each moves a little."""
    latents = []

    def gradient(guidance, step):
        latents.append(step.x)
        return -1e-4 * step.x

    monkeypatch.setattr(layout_steps.LayoutGuidance, "_gradient", gradient)
    return latents


def run(model, sampler, callback=None):
    texts = prompt(model, 100), prompt(model, 200)
    return sample(model, *texts, sampler=sampler, steps=STEPS, callback=callback)


def without_unet(model):
    """The MODEL with a share of its input as the answer: what a sampler does is to be seen, not a picture."""
    quick = model.clone()
    quick.set_model_unet_function_wrapper(lambda apply, args: 0.5 * args["input"])
    return quick


# what each kind of sampler does: one evaluation, two, noise, a latent that cannot be moved, steps of its own choice
QUICK = ("euler", "heun", "euler_ancestral", "dpmpp_2m", "dpmpp_sde", "uni_pc", "lcm", "dpm_adaptive")


@pytest.mark.parametrize("sampler", few_of(comfy.samplers.SAMPLER_NAMES, *QUICK))
def test_each_step_moves_the_samplers_own_latent_or_it_is_said(model, moved, sampler, caplog):
    patched = without_unet(conducted(model, layout=True, guidance_end=1.0))
    before, shown = [], []

    def callback(step, denoised, x, steps):
        shown.append(x)
        before.append(len(moved))

    out = run(patched, sampler, callback)
    if sampler in OFF:
        assert not moved and "layout guidance is off with this sampler" in caplog.text
        assert torch.equal(out, run(without_unet(conducted(model)), sampler))
        return
    assert "layout guidance is off" not in caplog.text
    # one latent for each step, moved before the step ends
    assert before == list(range(1, COARSE.get(sampler, STEPS) + 1)) and len(moved) == len(before)
    if sampler not in STALE:
        assert all(one is other for one, other in zip(moved, shown, strict=True))


@pytest.mark.parametrize("sampler", sorted(STALE))
def test_samplers_that_show_an_old_latent_go_on_from_the_one_they_evaluate(sampler):
    """Moved in its third step, where the model answers as it did, the result moves too."""
    function = comfy.samplers.sampler_object(sampler).sampler_function

    def ends(moved):
        asked = []

        def model(x, sigma):
            asked.append(x)
            if moved and len(asked) == 3:
                x += 1.0
            return torch.zeros_like(x)

        return function(model, torch.ones(1, 4, 8, 8), torch.tensor([8.0, 6.0, 4.0, 3.0, 2.0]), disable=True)

    assert differ(ends(moved=True), ends(moved=False)) > 0.1


def test_watching_a_sampler_changes_no_random_number(model):
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", STEPS).tolist()
    torch.manual_seed(3)
    expected = torch.randn(4)
    torch.manual_seed(3)
    for sampler in ("heunpp2", "dpmpp_sde", "lcm"):
        assert own_steps_of(comfy.samplers.sampler_object(sampler), model, sigmas, 4).count == STEPS
    assert torch.equal(torch.randn(4), expected)


def test_another_course_than_watched_is_told():
    steps = OwnSteps([(10.0, 0), (5.0, None), (5.0, 1)])
    assert [steps.enter(sigma) for sigma in (10.0, 5.0, 5.0)] == [0, None, 1]
    with pytest.raises(LookupError):
        steps.enter(2.0)
    with pytest.raises(LookupError):
        OwnSteps([(10.0, 0), (5.0, None)]).enter(9.0)


def twice(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Euler that evaluates each step twice, as a sampler of another pack might."""
    for i in range(len(sigmas) - 1):
        for _ in range(2):
            denoised = model(x, sigmas[i] * x.new_ones(len(x)), **extra_args)
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
        x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
    return x


def custom(model, function, **options):
    """One run with a sampler function."""
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", STEPS)
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(prompt(model, 100), prompt(model, 200))
    guider.set_cfg(5.0)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    sampler = comfy.samplers.KSAMPLER(function, options)
    return guider.sample(noise, torch.zeros_like(noise), sampler, sigmas, disable_pbar=True, seed=0)


def test_samplers_of_other_packs_are_guided_once_at_each_level_and_run_once(model, moved):
    patched = without_unet(conducted(model, layout=True, guidance_end=1.0))
    runs = []
    custom(patched, lambda *args, **kwargs: (runs.append(1), twice(*args, **kwargs))[1])
    assert len(moved) == STEPS and runs == [1]


def test_churned_noise_levels_are_guided_too(model, moved):
    """Options that add noise before a step evaluate above the schedule's levels."""
    from comfy.k_diffusion.sampling import sample_euler

    custom(without_unet(conducted(model, layout=True, guidance_end=1.0)), sample_euler, s_churn=2.0)
    assert len(moved) == STEPS


def test_a_latent_that_grows_ends_guidance_and_says_so(model, caplog):
    from comfy_extras.nodes_advanced_samplers import sample_lcm_upscale

    grown = {"total_upscale": 1.5, "upscale_steps": 3}
    out = custom(conducted(model, layout=True, guidance_weight=0.1, guidance_end=1.0), sample_lcm_upscale, **grown)
    assert out.shape == (1, 4, 12, 12) and out.isfinite().all()
    assert caplog.text.count("layout guidance stops") == 1
    assert differ(out, custom(conducted(model), sample_lcm_upscale, **grown)) > 1e-3
