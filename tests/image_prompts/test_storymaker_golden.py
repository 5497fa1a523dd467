"""StoryMaker through the public node against values recorded from the published code."""

import pytest
import torch
from image_prompts.test_mip_adapter_golden import one_call, trajectory
from support.compare import OTHER_UNITS
from support.golden_data import GOLDEN, case
from support.identity import storymaker_case
from support.models import tiny_model

from pack.nodes.image_prompts import story_member

EPS, TOKENS = 5e-5 * OTHER_UNITS, 1e-5
CASES = ["sdxl_1person", "sdxl_2people_nonsquare", "sdxl_cloth", "ext_regions_2people"]


def test_every_recorded_case_is_run():
    names = {path.stem for path in (GOLDEN / "storymaker").iterdir()}
    assert names == {*CASES, "traj_2people", "crops", "weights"}


@pytest.mark.parametrize("name", CASES)
def test_noise_prediction(name, monkeypatch):
    model, golden, params = storymaker_case(tiny_model("sdxl"), name, monkeypatch)
    call = one_call(model, golden, params)
    assert (call.cond - golden["eps_cond"]).abs().max() < EPS
    assert (call.uncond - golden["eps_uncond"]).abs().max() < EPS


@pytest.mark.parametrize("name", CASES)
def test_image_tokens(name, monkeypatch):
    """The ground's first, then each person's; of nobody the same, in the same places."""
    seen, original = [], story_member.image_layers

    def watched(blocks, adapter, tokens, empty):
        seen.append((torch.cat(tokens), torch.cat(empty)))
        return original(blocks, adapter, tokens, empty)

    monkeypatch.setattr(story_member, "image_layers", watched)
    _, golden, _ = storymaker_case(tiny_model("sdxl"), name, monkeypatch)
    ((tokens, empty),) = seen
    assert (tokens - golden["image_tokens_cond"]).abs().max() < TOKENS
    assert (empty - golden["image_tokens_uncond"]).abs().max() < TOKENS


def test_trajectory(monkeypatch):
    golden, params = case("storymaker/traj_2people")
    assert all(params["active"])
    model, *_ = storymaker_case(tiny_model("sdxl"), "traj_2people", monkeypatch)
    latents = trajectory(model, golden, params["cfg"])
    for latent, expected in zip(latents, golden["traj_cfg_latents"], strict=True):
        assert (latent - expected).abs().max() < 2e-3
