"""MIP-Adapter through the public nodes against values recorded from its published code."""

import pytest
import torch
from support.compare import OTHER_UNITS
from support.golden_data import GOLDEN, case
from support.image_prompts import patched
from support.models import conditioning, recording, sample, tiny_model

from pack.nodes.image_prompts.image_branch import ImageBranch

EPS, WEIGHTS = 5e-5 * OTHER_UNITS, 5e-4
CASES = [
    "sdxl_base_1ref",
    "sdxl_base_2ref",
    "sdxl_plus_3ref",
    "sdxl_base_2obj_5img_batch2",
    "sd15_ip_adapter_2ref",
    "sd15_plus_2ref",
    "sdxl_base_2ref_nonsquare",
    "ext_masks_2ref",
    "ext_masks_strengths_2ref",
    "ext_power3_2ref",
    "ext_prompt_tokens_2ref",
]
# down_blocks.i holds one resnet less than the host's input blocks of its level; SDXL has no attention at level 0.
DIFFUSERS = {"down_blocks": ("input", lambda i, j: 3 * i + j + 1), "up_blocks": ("output", lambda i, j: 3 * i + j)}


def texts(golden, side):
    values = {}
    if "time_ids" in golden:
        values = {"pooled_output": golden[f"pooled_{side}"], "time_ids": golden["time_ids"]}
    return conditioning(golden[f"context_{side}"], **values)


def one_call(model, golden, params, positive=None):
    """The UNet's outputs at the recorded input."""
    sigma = float(model.get_model_object("model_sampling").sigma(torch.tensor(params["timestep"])))
    x = golden["latents"] * (1 + sigma**2) ** 0.5 / sigma
    model, recorder = recording(model)
    sample(
        model,
        positive or texts(golden, "cond"),
        texts(golden, "uncond"),
        latent=tuple(x.shape),
        noise=x,
        sigmas=torch.tensor([sigma, 0.0]),
    )
    (call,) = recorder.calls
    torch.testing.assert_close(call.x[: len(x)], golden["latents"], rtol=0, atol=2e-6)
    return call


def trajectory(model, golden, cfg):
    """The latents after each step of the recorded run, repeated by the host's own sampler."""
    alphas = golden["alphas_cumprod"].double()
    sigmas = ((1 - alphas) / alphas).sqrt().float()
    scale = (1 + sigmas**2).sqrt()
    reached = []
    sample(
        model,
        texts(golden, "cond"),
        texts(golden, "uncond"),
        cfg=cfg,
        noise=golden["latents"] * scale[0] / sigmas[0],
        latent=tuple(golden["latents"].shape),
        sigmas=sigmas,
        callback=lambda step, x0, x, total: reached.append((x / scale[step], x0)),
    )
    # the sampler reports x before each step, and what it predicts to be the picture, which the last step reaches
    return [x for x, _ in reached] + [reached[-1][1]]


def host_block(name):
    """The host key of a layer by its diffusers name."""
    parts = name.split(".")
    if parts[0] == "mid_block":
        return "middle", 0, int(parts[-1])
    side, number = DIFFUSERS[parts[0]]
    return side, number(int(parts[1]), int(parts[3])), int(parts[-1])


def test_every_recorded_case_is_run():
    names = {path.stem for path in (GOLDEN / "mip_adapter").iterdir()}
    elsewhere = {"compose_ip_adapter", "traj_sdxl_base_2ref", "encode", "tokens", "kernel_3obj", "kernel_peaky"}
    assert {name for name in names if not name.startswith("weights_")} == {*CASES, *elsewhere}


@pytest.mark.parametrize("name", CASES)
def test_noise_prediction(name, monkeypatch):
    golden, params = case(f"mip_adapter/{name}")
    model = tiny_model(params["unet"].split("_")[1])
    call = one_call(patched(model, golden, params, monkeypatch), golden, params)
    assert (call.cond - golden["eps_cond"]).abs().max() < EPS
    assert (call.uncond - golden["eps_uncond"]).abs().max() < EPS


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("sdxl_base_1ref", "sd15_plus_2ref")])
def test_merge_weights_of_all_layers(name, monkeypatch):
    golden, params = case(f"mip_adapter/{name}")
    recorded = {host_block(key.split("/")[1]): w for key, w in golden.items() if key.startswith("merge_weight/")}
    seen = {}
    original = ImageBranch._merge_weights

    def watched(branch, *args):
        seen[branch.block] = original(branch, *args)
        return seen[branch.block]

    monkeypatch.setattr(ImageBranch, "_merge_weights", watched)
    model = tiny_model(params["unet"].split("_")[1])
    one_call(patched(model, golden, params, monkeypatch), golden, params)
    assert set(recorded) == set(seen)
    for block, weights in recorded.items():
        assert (seen[block] - weights).abs().max() < WEIGHTS, block


@pytest.mark.parametrize("guided", [False, True])
def test_trajectory(guided, monkeypatch):
    golden, params = case("mip_adapter/traj_sdxl_base_2ref")
    model = tiny_model("sdxl")
    model = patched(model, golden, params, monkeypatch)
    recorded = golden["traj_cfg_latents" if guided else "traj_nocfg_latents"]
    latents = trajectory(model, golden, params["cfg"] if guided else 1.0)
    for latent, expected in zip(latents, recorded, strict=True):
        assert (latent - expected).abs().max() < 2e-3
