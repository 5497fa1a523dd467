"""PILOT on the recorded runs, through the public node and the host's own sampler."""

import pytest
import torch
from support.clips import NumberedCLIP
from support.compare import relative
from support.golden_data import case
from support.golden_runs import repeat_run
from support.models import StubVAE, execute, tiny_model
from support.thorough import few_of

from pack.nodes.editing import pilot_series
from pack.nodes.editing.hole import Hole
from pack.nodes.editing.pilot_node import PILOT
from pack.nodes.host import seeded

CASES = ("sd15_trajectory", "sd15_no_attention_loss")


def patched(golden, params, monkeypatch, **changed):
    model = tiny_model()
    draws = iter(golden.get("noise_blend", ()))
    monkeypatch.setattr(seeded, "seeded_noise", lambda name, shape: next(draws).reshape(shape))
    inputs = {
        "clip": NumberedCLIP({}),
        "vae": StubVAE(model, golden["z0_image"]),
        "image": torch.rand(1, 256, 256, 3),
        "mask": 1 - golden["keep_mask"][None].float(),
        "prompt": " ".join(map(str, params["ids"])),
        "operations": params["ops"],
        "interval": params["interval"],
        "gamma": params["gamma"],
        "coef": float(params["coef"]),
        "lr": params["lr"],
        "lr_first": params["lr_warmup"],
        "momentum": params["momentum"],
    }
    return execute(PILOT, model=model, **{**inputs, **changed})


@pytest.fixture
def operations(monkeypatch):
    """(latent, loss, gradient) of each operation."""
    found, losses, real, real_loss = [], [], pilot_series.Series._gradient_of, pilot_series.gradient_through

    def noted(loss_of, *rest):
        def kept(*outputs):
            losses.append(loss_of(*outputs))
            return losses[-1]

        return real_loss(kept, *rest)

    def gradient_of(self, z, images):
        gradient = real(self, z, images)
        found.append((z.clone(), float(losses[-1]), gradient))
        return gradient

    monkeypatch.setattr(pilot_series, "gradient_through", noted)
    monkeypatch.setattr(pilot_series.Series, "_gradient_of", gradient_of)
    return found


@pytest.mark.parametrize("inference", few_of([False, True], True))
@pytest.mark.parametrize("name", CASES)
def test_recorded_runs(name, inference, monkeypatch, operations):
    golden, params = case(f"pilot/{name}")
    with torch.inference_mode(inference):
        model, latent = patched(golden, params, monkeypatch)
        assert latent["samples"].shape == (1, 4, 32, 32) and not latent["samples"].any()
        run = repeat_run(model, golden, params["guidance"])
    assert len(operations) == len(golden["op_loss"])
    losses = torch.tensor([loss for _, loss, _ in operations])
    assert relative(losses, golden["op_loss"]) < 1e-4
    for number, kept in enumerate(golden["op_kept"].tolist()):
        z, _, gradient = operations[kept]
        assert relative(z, golden["op_x"][number]) < 1e-3
        assert relative(gradient, golden["op_grad"][number]) < 1e-3
    for step, call in enumerate(run.calls):
        assert relative(call.x[:1], golden["x_optimized"][step]) < 1e-3
        assert relative(call.cond, golden["eps_cond"][step]) < 2e-4
        assert relative(call.uncond, golden["eps_uncond"][step]) < 2e-4
    assert relative(run.latents[-1], golden["latents"][-1]) < 1e-3


@pytest.mark.parametrize("name", CASES)
def test_levels_of_the_hole(name):
    golden, _ = case(f"pilot/{name}")
    hole = Hole(1 - golden["keep_mask"][None].float())
    for level in range(4):
        side = 32 >> level
        assert torch.equal(hole.inside((32, 32), (side, side)).view(side, side), golden[f"hole_level{level}"] > 0)
