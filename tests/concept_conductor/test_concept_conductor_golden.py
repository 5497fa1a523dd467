"""Concept Conductor through the public nodes against values recorded from the published code."""

import comfy.samplers
import pytest
import torch
from support.compare import relative
from support.concepts import golden_case, golden_conductor, golden_model, text_of
from support.models import recording, sample, tiny_model

from pack.kernels.layout_guidance import layout_loss
from pack.nodes.concept_conductor import concept_conductor, conductor_run, layout_steps

STEPS = [
    "sd15_step_2concepts",
    "sd15_step_3concepts_touching",
    "sd15_step_identical_concepts",
    "sd15_step_boxes_plainlora",
    "sdxl_step_2concepts",
]
# largest error of eps, relative error of the guided latents and of the gradient
LIMITS = {"tiny_sd15": (1e-4, 1e-4), "tiny_sdxl": (1e-3, 1e-3)}


def one_step(golden, params, latents, model):
    """The UNet's (x, cond, uncond) of one step from VP latents, through the host's Euler."""
    sigma = float(model.get_model_object("model_sampling").sigmas[params["timestep"]])
    scale = (1 + sigma**2) ** 0.5
    model, recorder = recording(model)
    sample(
        model,
        text_of(golden, "base", params),
        text_of(golden, "neg", params),
        latent=tuple(latents.shape),
        # the sampler scales the noise of a run below full denoise by sigma
        noise=latents * scale / sigma,
        sigmas=torch.tensor([sigma, 0.0]),
    )
    (call,) = recorder.calls
    return call


@pytest.mark.parametrize("name", STEPS)
def test_injection_at_the_recorded_latents(name, monkeypatch):
    golden, params = golden_case(name)
    model = golden_conductor(golden_model(params), golden, params, 1, guidance_weight=0.0)
    call = one_step(golden, params, golden["latents_guided"], model)
    torch.testing.assert_close(call.x[:1], golden["latents_guided"], rtol=0, atol=1e-5)
    limit, _ = LIMITS[params["model"]]
    assert (call.cond - golden["eps/injected"][:1]).abs().max() < limit
    assert (call.uncond - golden["eps/injected"][1:]).abs().max() < limit
    assert relative(golden["eps/unpatched"], golden["eps/injected"]) > 0.3


@pytest.mark.parametrize("name", STEPS)
def test_guidance_and_injection_together(name, monkeypatch):
    golden, params = golden_case(name)
    asked = []

    def layout_latent(conducting, step, timestep):
        asked.append((step, timestep))
        return golden["ref_latents"]

    monkeypatch.setattr(conductor_run.Conducting, "layout_latent", layout_latent)
    call = one_step(golden, params, golden["latents"], golden_conductor(golden_model(params), golden, params, 1))
    assert asked == [(0, params["timestep"])]
    limit, of_gradient = LIMITS[params["model"]]
    ours = (golden["latents"] - call.x[:1]) / params["attn_guidance_weight"]
    assert relative(ours, golden["grad"]) < of_gradient
    assert relative(call.x[:1], golden["latents_guided"]) < of_gradient
    assert (call.cond - golden["eps/injected"][:1]).abs().max() < limit
    assert (call.uncond - golden["eps/injected"][1:]).abs().max() < limit


@pytest.mark.parametrize("scale", [1.0, 1e-6])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float16, 0.02), (torch.bfloat16, 0.2)], ids=["half", "bfloat16"])
def test_the_gradient_in_half_precision(dtype, limit, scale, monkeypatch):
    """Also where its values are far below what half precision can hold, as those of full-size layers are."""
    golden, params = golden_case("sd15_step_2concepts")
    monkeypatch.setattr(conductor_run.Conducting, "layout_latent", lambda self, step, timestep: golden["ref_latents"])
    monkeypatch.setattr(layout_steps, "layout_loss", lambda *args: scale * layout_loss(*args))
    shifts, real = [], layout_steps.LayoutGuidance.shift
    monkeypatch.setattr(layout_steps.LayoutGuidance, "shift", lambda *args: (shifts.append(real(*args)), shifts[-1])[1])
    model = tiny_model("sd15", dtype=dtype)
    one_step(golden, params, golden["latents"], golden_conductor(model, golden, params, 1))
    sigma = float(model.get_model_object("model_sampling").sigmas[params["timestep"]])
    gradient = shifts[0] / (-params["attn_guidance_weight"] * (1 + sigma**2) ** 0.5 * scale)
    assert relative(gradient, golden["grad"]) < limit


class RecordedClusters:
    """k-means as it was recorded: of all clusterings of a case, the one that fits the rows best."""

    def __init__(self, golden):
        self.labels = {key: labels.long() for key, labels in golden.items() if "/labels/" in key}
        self.calls = []

    def __call__(self, rows, k):
        fitting = {key: labels for key, labels in self.labels.items() if key.endswith(f"/k{k}")}
        best = min(fitting, key=lambda key: self._spread(rows, fitting[key]))
        self.calls.append(best)
        return fitting[best]

    @staticmethod
    def _spread(rows, labels):
        return float(sum(((rows[labels == c] - rows[labels == c].mean(0)) ** 2).sum() for c in labels.unique()))


TRAJECTORIES = [
    ("sd15_trajectory_2concepts", 1e-3),
    # the loss mask stays the user's first masks while the others are refined
    ("sd15_trajectory_rect_lossmask", 1e-3),
    ("sdxl_trajectory_2concepts", 5e-3),
]


@pytest.mark.parametrize(("name", "limit"), TRAJECTORIES)
def test_trajectory(name, limit, monkeypatch):
    golden, params = golden_case(name)
    steps = len(params["timesteps"])
    monkeypatch.setattr(
        conductor_run.Conducting, "layout_latent", lambda self, step, timestep: golden[f"step{step}/ref_latents"]
    )
    clusters = RecordedClusters(golden)
    monkeypatch.setattr(conductor_run.Conducting, "cluster", lambda self, rows, k: clusters(rows, k))
    seen = []
    refine = concept_conductor.ConceptMasks.refine

    def noted(masks, step, *rest):
        refine(masks, step, *rest)
        seen.append((step, masks._following, masks._custom.clone(), masks._base.clone()))

    monkeypatch.setattr(concept_conductor.ConceptMasks, "refine", noted)
    model = golden_conductor(golden_model(params), golden, params, steps)
    table = model.get_model_object("model_sampling").sigmas
    # DDIM's last step goes to the lowest level of the model
    sigmas = torch.stack([*(table[t] for t in params["timesteps"]), table[0]])
    scale = (1 + sigmas**2).sqrt()
    model, recorder = recording(model)
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(text_of(golden, "base", params), text_of(golden, "neg", params))
    guider.set_cfg(params["guidance_scale"])
    final = guider.sample(
        golden["latents"] * scale[0] / sigmas[0],
        torch.zeros_like(golden["latents"]),
        comfy.samplers.ksampler("euler"),
        sigmas,
        disable_pbar=True,
    )
    final = model.model.process_latent_in(final) / scale[-1]
    for step, call in enumerate(recorder.calls):
        assert relative(call.x[:1], golden[f"step{step}/latents_in"]) < limit
        ours = torch.cat([call.cond, call.uncond])
        assert relative(ours, golden[f"step{step}/eps_injected"]) < limit
    assert relative(final, golden[f"step{steps - 1}/latents_out"]) < limit
    assert relative(golden["final_unpatched"], golden[f"step{steps - 1}/latents_out"]) > 0.3

    first, last = params["mask_refinement_start"], params["mask_refinement_end"]
    assert [step for step, *_ in seen] == list(range(first, last + 1))
    for step, masks, custom, base in seen:
        for i in range(params["num_concepts"]):
            recorded = {
                tuple(golden[key].shape)[-1]: golden[key]
                for key in golden
                if key.startswith(f"step{step}/mask{i + 1}/factor")
            }
            compared = [found for grid, found in masks.items() if grid[0] * grid[1] in recorded]
            assert len(compared) >= 3
            for found in compared:
                assert torch.equal(found[i].flatten(1), recorded[found[i][0].numel()] > 0)
            for kind, running in (("custom", custom), ("base", base)):
                (key,) = (key for key in golden if key.startswith(f"step{step}/{kind}_mask{i + 1}/"))
                assert torch.equal(running[i].flatten(1), golden[key] > 0)
    # the base's map is clustered once for all concepts, and none where masks become rectangles
    each = 0 if params["rect_mask"] else 3 * (1 + params["num_concepts"])
    expected_steps = [f"step{step}" for step, *_ in seen for _ in range(each)]
    assert [call.split("/")[0] for call in clusters.calls] == expected_steps
