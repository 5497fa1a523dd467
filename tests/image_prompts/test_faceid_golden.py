"""FaceID through the public node against values recorded from the published code."""

from ast import literal_eval

import pytest
import torch
from image_prompts.test_mip_adapter_golden import one_call, trajectory
from support.compare import OTHER_UNITS
from support.golden_data import GOLDEN, case
from support.identity import faceid_case
from support.models import tiny_model

from pack.nodes.image_prompts import faceid
from pack.nodes.image_prompts.image_branch import ImageBranch

EPS, TOKENS, WEIGHTS = 5e-5 * OTHER_UNITS, 1e-5, 5e-4
CASES = [
    "sd15_faceid",
    "sd15_plus",
    "sd15_plusv2_structure",
    "sdxl_plusv2",
    "sdxl_faceid_batch2_nonsquare",
    "sd15_portrait_5faces",
    "ext_weighted_2people",
    "ext_weighted_regions_strengths",
    "ext_joint_regions",
]


def model_of(name):
    return tiny_model(case(f"faceid/{name}")[1]["unet"].split("_")[1])


def test_every_recorded_case_is_run():
    names = {path.stem for path in (GOLDEN / "faceid").iterdir() if not path.stem.startswith("weights_")}
    assert names == {*CASES, "align", "traj_sd15_plus"}


@pytest.mark.parametrize("name", CASES)
def test_noise_prediction(name, monkeypatch):
    model, golden, params = faceid_case(model_of(name), name, monkeypatch)
    call = one_call(model, golden, params)
    assert (call.cond - golden["eps_cond"]).abs().max() < EPS
    assert (call.uncond - golden["eps_uncond"]).abs().max() < EPS


@pytest.mark.parametrize("name", CASES)
def test_image_tokens(name, monkeypatch):
    seen, original = [], faceid.image_layers

    def watched(blocks, adapter, tokens, empty):
        seen.append((torch.cat(tokens), empty))
        return original(blocks, adapter, tokens, empty)

    monkeypatch.setattr(faceid, "image_layers", watched)
    _, golden, _ = faceid_case(model_of(name), name, monkeypatch)
    ((tokens, empty),) = seen
    assert (tokens - golden["image_tokens_cond"]).abs().max() < TOKENS
    # the published code has the empty face once per picture
    recorded = golden["image_tokens_uncond"]
    assert (empty.repeat(len(recorded) // len(empty), 1) - recorded).abs().max() < TOKENS


@pytest.mark.parametrize("name", ["ext_weighted_2people", "ext_weighted_regions_strengths"])
def test_merge_weights_of_all_layers(name, monkeypatch):
    seen, original = {}, ImageBranch._merge_weights

    def watched(branch, *args):
        seen[branch.block] = original(branch, *args)
        return seen[branch.block]

    monkeypatch.setattr(ImageBranch, "_merge_weights", watched)
    model, golden, params = faceid_case(model_of(name), name, monkeypatch)
    one_call(model, golden, params)
    recorded = [key for key in golden if key.startswith("merge_weight/")]
    assert recorded
    for key in recorded:
        assert (seen[literal_eval(key.split("/")[1])] - golden[key]).abs().max() < WEIGHTS, key


def test_trajectory(monkeypatch):
    """The image part is off on the last step, the LoRA acts on all."""
    golden, params = case("faceid/traj_sd15_plus")
    active = params["active"]
    end = 1.0 if all(active) else sum(active) / len(active)
    model, *_ = faceid_case(tiny_model("sd15"), "traj_sd15_plus", monkeypatch, end_percent=end)
    latents = trajectory(model, golden, params["cfg"])
    for latent, expected in zip(latents, golden["traj_cfg_latents"], strict=True):
        assert (latent - expected).abs().max() < 2e-3
