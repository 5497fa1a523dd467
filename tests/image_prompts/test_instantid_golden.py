"""InstantID through the public node against values recorded from the published code."""

from ast import literal_eval

import pytest
import torch
from image_prompts.test_mip_adapter_golden import one_call, texts, trajectory
from support.compare import OTHER_UNITS
from support.controlnets import identity_net
from support.golden_data import GOLDEN, case
from support.identity import instantid_case
from support.models import tiny_model

from pack.nodes.image_prompts import instantid
from pack.nodes.image_prompts.identity_passes import IdentityPasses
from pack.nodes.image_prompts.image_branch import ImageBranch

EPS, TOKENS, RESIDUALS, WEIGHTS = 5e-5 * OTHER_UNITS, 1e-5, 2e-5, 5e-4
CASES = ["sdxl_adapter_only", "sdxl_1face", "sdxl_3views_nonsquare_batch2", "sdxl_region", "ext_2people_regions"]


def test_every_recorded_case_is_run():
    names = {path.stem for path in (GOLDEN / "instantid").iterdir() if not path.stem.startswith("weights")}
    assert names == {*CASES, "sdxl_second_controlnet", "traj_window", "keypoints"}


@pytest.mark.parametrize("name", CASES)
def test_noise_prediction(name, monkeypatch):
    model, golden, params = instantid_case(tiny_model("sdxl"), name, monkeypatch)
    call = one_call(model, golden, params)
    assert (call.cond - golden["eps_cond"]).abs().max() < EPS
    assert (call.uncond - golden["eps_uncond"]).abs().max() < EPS


@pytest.mark.parametrize("name", CASES)
def test_image_tokens(name, monkeypatch):
    seen, original = [], instantid._tokens_of_people

    def watched(*args):
        seen.append(original(*args))
        return seen[-1]

    monkeypatch.setattr(instantid, "_tokens_of_people", watched)
    _, golden, _ = instantid_case(tiny_model("sdxl"), name, monkeypatch)
    ((tokens, empty),) = seen
    assert (torch.cat(tokens) - golden["image_tokens_cond"]).abs().max() < TOKENS
    assert (torch.cat(empty) - golden["image_tokens_uncond"]).abs().max() < TOKENS


def test_residuals(monkeypatch):
    seen, original = [], IdentityPasses.residuals

    def watched(passes, *args):
        seen.append(original(passes, *args))
        return seen[-1]

    monkeypatch.setattr(IdentityPasses, "residuals", watched)
    model, golden, params = instantid_case(tiny_model("sdxl"), "sdxl_1face", monkeypatch)
    one_call(model, golden, params)
    (found,) = seen
    assert {name: len(values) for name, values in found.items()} == {"output": 9, "middle": 1}
    recorded = {f"control_down_cond/{i}": found["output"][i] for i in (0, 4, 8)}
    recorded["control_mid_cond"] = found["middle"][0]
    for name, residual in recorded.items():
        own = residual.unflatten(0, (2, -1))
        # recorded before or after the scale, which is the node's own
        expected = golden[name]
        assert min((own[i] * s - expected).abs().max() for i in (0, 1) for s in (1, 1 / 0.8)) < RESIDUALS, name


def test_merge_weights(monkeypatch):
    seen, original = {}, ImageBranch._merge_weights

    def watched(branch, *args):
        seen[branch.block] = original(branch, *args)
        return seen[branch.block]

    monkeypatch.setattr(ImageBranch, "_merge_weights", watched)
    model, golden, params = instantid_case(tiny_model("sdxl"), "ext_2people_regions", monkeypatch)
    one_call(model, golden, params)
    recorded = [key for key in golden if key.startswith("merge_weight/")]
    assert recorded
    for key in recorded:
        assert (seen[literal_eval(key.split("/")[1])] - golden[key]).abs().max() < WEIGHTS, key


@pytest.mark.parametrize("first", [False, True], ids=["InstantID, ControlNet", "ControlNet, InstantID"])
def test_beside_a_second_controlnet(first, monkeypatch):
    """The other net sees its own prompt, whichever is applied first; nothing that came in is changed."""
    golden, params = case("instantid/sdxl_second_controlnet")
    model, net = tiny_model("sdxl"), identity_net()
    state = {key: t.clone() for key, t in net.control_model.state_dict().items()}
    # of the two points, the first is InstantID's
    alone = {**golden, "keypoints": golden["keypoints"][:1], "keypoint_picture": golden["keypoint_picture"][:1]}
    monkeypatch.setattr("support.identity.case", lambda name: (alone, params) if "second" in name else case(name))

    hint = golden["keypoint_picture"][1:].float().movedim(-1, 1) / 255
    # one for both sides, as the host's node makes it
    other = net.copy().set_cond_hint(hint, params["control_scale"][1])

    def applied(conditioning):
        return [[t, {**values, "control": other, "control_apply_to_uncond": False}] for t, values in conditioning]

    positive, negative = texts(golden, "cond"), texts(golden, "uncond")
    if first:
        positive, negative = applied(positive), applied(negative)
    patched, _, _ = instantid_case(model, "sdxl_second_controlnet", monkeypatch, control_net=net)
    if not first:
        positive, negative = applied(positive), applied(negative)
    monkeypatch.setattr("image_prompts.test_mip_adapter_golden.texts", lambda golden, side: negative)
    call = one_call(patched, golden, params, positive=positive)
    assert (call.cond - golden["eps_cond"]).abs().max() < EPS
    assert (call.uncond - golden["eps_uncond"]).abs().max() < EPS
    assert all(torch.equal(t, state[key]) for key, t in net.control_model.state_dict().items())
    assert (
        net.cond_hint_original is None and net.previous_controlnet is None and not model.model_options.get("wrappers")
    )


def test_trajectory(monkeypatch):
    """IdentityNet acts on the first two of four steps."""
    golden, params = case("instantid/traj_window")
    share = sum(params["control_active"]) / len(params["control_active"])
    model, *_ = instantid_case(tiny_model("sdxl"), "traj_window", monkeypatch, control_end=share)
    latents = trajectory(model, golden, params["cfg"])
    for latent, expected in zip(latents, golden["traj_cfg_latents"], strict=True):
        assert (latent - expected).abs().max() < 2e-3
