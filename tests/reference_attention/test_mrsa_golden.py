"""MRSA through the public nodes against values recorded from FreeCustom's published code."""

import math

import comfy.ldm.modules.attention as attention
import pytest
import torch
from support.golden_data import case
from support.golden_runs import repeat_run, schedule_of, texts
from support.models import StubCLIP, StubVAE, execute, recording, sample, tiny_adm, tiny_model

from pack.nodes.reference_attention import mrsa
from pack.nodes.reference_attention.mrsa_node import MultiReferenceSelfAttention
from pack.nodes.references.references_node import AddReference

EPS_CASES = {
    "eps_sd15_default": 2e-5,
    "eps_sd15_fidelity0_all_layers": 2e-5,
    "eps_sd15_fidelity_half": 2e-5,
    "eps_sdxl": 4e-5,
    "ext_soft_masks_regions": 2e-5,
}


def patched(model, golden, params, monkeypatch, regions=True, noises=None, window=(0.0, 1.0)):
    """The MODEL with a case's references, through Add Reference and the MRSA node."""
    count = len(golden["context_ref"])
    extra = [{}] * count
    if "pooled_ref" in golden:
        extra = [{"pooled_output": pooled[None], "time_ids": golden["time_ids"]} for pooled in golden["pooled_ref"]]
    clip = StubCLIP({f"picture {i}": (golden["context_ref"][i][None], extra[i]) for i in range(count)})
    latents = golden.get("z0_ref", torch.zeros(count, 4, *golden["x_ref"].shape[-2:]) if "x_ref" in golden else None)
    monkeypatch.setattr(mrsa, "reference_noise", noises)
    weight = max(params["mask_weights"])
    masks = golden.get("soft_masks", golden.get("ref_masks"))
    references = ()
    for i in range(count):
        region = golden["target_regions"][i] if regions and "target_regions" in golden else None
        (references,) = execute(
            AddReference,
            image=torch.rand(1, 8 * latents.shape[-2], 8 * latents.shape[-1], 3),
            strength=math.exp(params["mask_weights"][i] - weight),
            prompt=f"picture {i}",
            mask=masks[i].float(),
            region=region,
            references=references,
        )
    layers = params["layer_idx"]
    (model,) = execute(
        MultiReferenceSelfAttention,
        model=model,
        clip=clip,
        vae=StubVAE(model, latents),
        weight=weight,
        blocks="custom",
        custom_blocks=f"{layers[0]}-{layers[-1]}",
        style_fidelity=float(params["style_fidelity"]),
        start_percent=window[0],
        end_percent=window[1],
        references=references,
    )
    return model


@pytest.mark.parametrize("function", ["attention_sub_quad", "attention_pytorch"])
@pytest.mark.parametrize(
    ("name", "regions"), [*((name, True) for name in EPS_CASES), ("ext_soft_masks_regions", False)]
)
def test_noise_prediction(name, regions, function, monkeypatch):
    """With the bias in channels, and merged by log-sum-exp where the host's function is PyTorch's own."""
    monkeypatch.setattr(attention, "optimized_attention", getattr(attention, function))
    golden, params = case(f"mrsa/{name}")
    model = tiny_model(params["unet"].removeprefix("tiny_"))
    sigma = float(model.get_model_object("model_sampling").sigma(golden["timestep"]))
    scale = (1 + sigma**2) ** 0.5
    # the reference latents are zero, so this noise makes the UNet's reference inputs equal to the recorded ones
    noises = lambda seed, index, step, like: golden["x_ref"][index][None] * scale / sigma  # noqa: E731
    model, recorder = recording(patched(model, golden, params, monkeypatch, regions, noises))
    x = golden["x_target"] * scale / sigma
    sample(
        model,
        texts(golden, "target"),
        texts(golden, "neg"),
        latent=tuple(x.shape),
        noise=x,
        sigmas=torch.tensor([sigma, 0.0]),
    )

    (call,) = recorder.calls
    torch.testing.assert_close(call.x[:1], golden["x_target"], rtol=0, atol=2e-6)
    expected = golden["eps_cond" if regions else "eps_cond_no_regions"]
    assert (call.cond - expected).abs().max() < EPS_CASES[name]
    assert (call.uncond - golden["eps_uncond"]).abs().max() < EPS_CASES[name]


@pytest.mark.parametrize("name", ["traj_guided", "traj_unguided"])
def test_trajectory(name, monkeypatch):
    golden, params = case(f"mrsa/{name}")
    model = tiny_model("sd15")
    sigmas = schedule_of(model, golden)[:-1]
    start, end = params.get("start_step", 0), params.get("end_step", len(sigmas))
    sampling = model.get_model_object("model_sampling")
    # a window from just above the first active step to just below the last one
    percents = [i / 1000 for i in range(1001)]
    reached = [sampling.percent_to_sigma(p) for p in percents]
    first = max(p for p, s in zip(percents, reached, strict=True) if s > sigmas[start])
    after = min(p for p, s in zip(percents, reached, strict=True) if s < sigmas[end - 1])

    number = {int(timestep): i for i, timestep in enumerate(golden["timesteps"])}
    noises = lambda seed, index, step, like: golden["noise_ref"][number[step], index][None]  # noqa: E731
    patched_model = patched(model, golden, params, monkeypatch, noises=noises, window=(first, after))
    run = repeat_run(patched_model, golden, params["guidance_scale"])
    for step, call in enumerate(run.calls):
        assert (call.cond - golden["eps_cond"][step]).abs().max() < 3e-5
        if "eps_uncond" in golden:
            assert (call.uncond - golden["eps_uncond"][step]).abs().max() < 3e-5
    limit = 1e-3 if name == "traj_guided" else 1e-4
    for latent, expected in zip(run.latents, golden["latents"], strict=True):
        assert (latent[0] - expected).abs().max() < limit


def test_tiny_adm_is_the_golden_one():
    golden, _ = case("mrsa/eps_sdxl")
    y = tiny_adm(pooled_output=golden["pooled_target"], time_ids=golden["time_ids"])
    assert y.shape == (1, 88)
