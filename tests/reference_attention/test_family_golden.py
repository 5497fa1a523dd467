"""DreamTuner, Reference Only, BootPIG and their guidance through the public nodes against recorded values."""

import copy

import pytest
import torch
from support.golden_data import case
from support.golden_runs import repeat_run, texts
from support.models import StubCLIP, StubVAE, execute, recording, sample, tiny_model

from pack.nodes.reference_attention import mrsa, reference_guidance
from pack.nodes.reference_attention.dreamtuner_node import DreamTuner
from pack.nodes.reference_attention.mrsa_node import MultiReferenceSelfAttention
from pack.nodes.reference_attention.reference_guidance_node import ReferenceGuidanceNode
from pack.nodes.reference_attention.reference_only_node import ReferenceOnlyNode
from pack.nodes.references.references_node import AddReference


def near(found, expected, tolerance):
    assert (found - expected).abs().max() < tolerance


def reference(golden):
    height, width = golden["z0_ref"].shape[-2:]
    mask = golden["mask"][None].float() if "mask" in golden else None
    return execute(AddReference, image=torch.rand(1, 8 * height, 8 * width, 3), prompt="it", mask=mask)[0]


def noises(golden):
    """What stands for reference_noise: the draws of the recorded steps."""
    number = {int(timestep): i for i, timestep in enumerate(golden["timesteps"])}
    return lambda seed, index, step, like: golden["noise_ref"][number[step]]


def dreamtuner(model, golden, omega, **inputs):
    clip = StubCLIP({"it": golden["context_target"]} if "pooled_target" not in golden else {"it": None})
    if "pooled_target" in golden:
        clip.table["it"] = texts(golden, "target")[0]
    vae = StubVAE(model, golden["z0_ref"])
    inputs = {"omega": omega, "reference_prompt": "target", "references": reference(golden), **inputs}
    return execute(DreamTuner, model=model, clip=clip, vae=vae, **inputs)[0]


def test_self_subject_attention(monkeypatch):
    golden, params = case("dreamtuner/ssa_mask")
    model = tiny_model("sd15")
    monkeypatch.setattr(mrsa, "reference_noise", noises(golden))
    run = repeat_run(dreamtuner(model, golden, params["omega"]), golden, params["guidance"])
    for step, call in enumerate(run.calls):
        near(call.uncond, golden["out_first"][step], 3e-5)
        near(call.cond, golden["out_second"][step], 3e-5)
    for found, expected in zip(run.latents, golden["latents"], strict=True):
        near(found, expected, 1e-3)


@pytest.mark.parametrize("name", ["guidance_text_then_reference", "guidance_interleaved"])
@pytest.mark.parametrize("first", [True, False], ids=["guidance first", "references first"])
def test_interleaved_guidance(name, first, monkeypatch):
    golden, params = case(f"dreamtuner/{name}")
    model = tiny_model("sd15")
    monkeypatch.setattr(mrsa, "reference_noise", noises(golden))
    # the draw of each step: far below the share where the recorded one was guided by the reference
    guided = {int(t): bool(flag) for t, flag in zip(golden["timesteps"], golden["reference_step"], strict=True)}
    draw = lambda name, shape: torch.full(shape, -9.0 if guided[int(name.split("/")[-1])] else 9.0)  # noqa: E731
    monkeypatch.setattr(reference_guidance, "seeded_noise", draw)

    def with_guidance(model):
        return execute(ReferenceGuidanceNode, model=model, reference_scale=params["ref_guidance"])[0]

    if first:
        patched = dreamtuner(with_guidance(model), golden, params["omega"])
    else:
        patched = with_guidance(dreamtuner(model, golden, params["omega"]))
    run = repeat_run(patched, golden, params["guidance"])
    for step, call in enumerate(run.calls):
        near(call.cond, golden["out_second"][step], 3e-5)
        near(call.uncond, golden["out_first"][step], 3e-5)
    for found, expected in zip(run.latents, golden["latents"], strict=True):
        near(found, expected, 1e-3)


@pytest.mark.parametrize(
    "name", ["sd15_attn", "sd15_attn_adain", "sd15_adain_fidelity1", "sd15_partial_weights", "sdxl_attn_adain"]
)
def test_reference_only(name, monkeypatch):
    golden, params = case(f"reference_only/{name}")
    model = tiny_model(params["kind"])
    monkeypatch.setattr(mrsa, "reference_noise", noises(golden))
    (patched,) = execute(
        ReferenceOnlyNode,
        model=model,
        vae=StubVAE(model, golden["z0_ref"]),
        attention=params.get("attn_weight", 1.0) if params["attn"] else 0.0,
        adain=params.get("gn_weight", 1.0) if params["adain"] else 0.0,
        style_fidelity=params["fidelity"],
        references=reference(golden),
    )
    tolerance, of_final = (1e-4, 1e-3) if params["kind"] == "sdxl" else (5e-5, 1e-4)
    run = repeat_run(patched, golden, params["guidance"])
    for step, call in enumerate(run.calls):
        near(call.cond, golden["eps_cond"][step], tolerance)
        near(call.uncond, golden["eps_uncond"][step], tolerance)
    near(run.latents[-1] / golden["final"].abs().max(), golden["final"] / golden["final"].abs().max(), of_final)


def second_model():
    """The published case's reference UNet."""
    model = tiny_model("sd15")
    state = copy.deepcopy(model.model.diffusion_model.state_dict())
    for name, tensor in state.items():
        if ".attn1." in name and tensor.ndim == 2:
            tensor *= 0.8
        if name == "input_blocks.0.0.weight":
            tensor *= 1.2
    model.model.diffusion_model.load_state_dict(state)
    return model


def test_bootpig(monkeypatch):
    golden, params = case("bootpig/one_reference")
    model = tiny_model("sd15")
    monkeypatch.setattr(mrsa, "reference_noise", noises(golden))
    (patched,) = execute(
        MultiReferenceSelfAttention,
        model=model,
        clip=StubCLIP({"it": golden["context_ref"]}),
        vae=StubVAE(model, golden["z0_ref"]),
        blocks="all",
        style_fidelity=0.0,
        references=reference(golden),
        reference_model=second_model(),
    )
    guided = {"mode": "three terms", "reference_scale": params["guidance_image"]}
    (patched,) = execute(ReferenceGuidanceNode, model=patched, **guided)
    run = repeat_run(patched, golden, params["guidance_text"])
    scale = golden["final"].abs().max()
    for step, call in enumerate(run.calls):
        near(call.cond, golden["eps_text_image"][step], 3e-5)
        near(call.uncond, golden["eps_image"][step], 3e-5)
    near(run.latents[-1] / scale, golden["final"] / scale, 1e-4)


@pytest.mark.parametrize(
    ("rows", "guided", "expected"), [("cond", True, "eps_cond_ref_minus"), ("uncond", False, "eps_uncond_ref_plus")]
)
def test_self_subject_attention_of_sdxl_at_shifted_levels(rows, guided, expected, monkeypatch):
    golden, params = case("dreamtuner/ssa_sdxl")
    model = tiny_model("sdxl")
    sigma = float(model.get_model_object("model_sampling").sigma(golden["timestep"]))
    monkeypatch.setattr(mrsa, "reference_noise", lambda *args: golden["noise_ref"])
    monkeypatch.setattr(
        reference_guidance, "seeded_noise", lambda name, shape: torch.full(shape, -9.0 if guided else 9.0)
    )
    (patched,) = execute(ReferenceGuidanceNode, model=dreamtuner(model, golden, params["omega"]))
    patched, recorder = recording(patched)
    x = golden["x_target"] * (1 + sigma**2) ** 0.5 / sigma
    sigmas = torch.tensor([sigma, 0.0])
    sample(patched, texts(golden, "target"), texts(golden, "neg"), latent=tuple(x.shape), noise=x, sigmas=sigmas)
    (call,) = recorder.calls
    near(call.x[:1], golden["x_target"], 2e-6)
    near(getattr(call, rows), golden[expected], 4e-5)
