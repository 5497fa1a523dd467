"""VisCtrl on the recorded passes, through the public node."""

import comfy.samplers
import pytest
import torch
from support.compare import relative
from support.golden_data import case
from support.models import StubVAE, conditioning, execute, recording, tiny_model
from support.thorough import few_of

from pack.nodes.editing import visctrl_passes
from pack.nodes.editing.visctrl_node import VisCtrlNode


class TwoPictures(StubVAE):
    """Encodes to the latents of the target and of the reference; keeps what is decoded."""

    def decode(self, latent):
        self.decoded = latent
        return torch.zeros(len(latent), 8, 8, 3)


def edited(golden, latents, kind="sd15", **inputs):
    """(the calls of the UNet, the result in its units); latents: of the picture and of its reference."""
    model, recorder = recording(tiny_model(kind))
    vae = TwoPictures(model, torch.cat(latents))
    texts = {}
    for name, text in (("positive", "tar"), ("reference_positive", "ref"), ("negative", "uncond")):
        more = {}
        if f"pooled_{text}" in golden:
            more = {"pooled_output": golden[f"pooled_{text}"], "time_ids": golden["time_ids"]}
        texts[name] = conditioning(golden[f"context_{text}"], **more)
    pictures = {"image": torch.rand(1, 128, 128, 3), "reference_image": torch.rand(1, 128, 128, 3)}
    execute(VisCtrlNode, model=model, vae=vae, **texts, **pictures, **inputs)
    return recorder.calls, model.model.process_latent_in(vae.decoded)


def settings(one, **more):
    """The inputs of a recorded pass."""
    given = {"steps": one["steps"], "cfg": float(one["guidance"]), "start_step": one["start_step"]}
    return {**given, "start_block": one["start_layer"], **more}


@pytest.fixture
def inversions(monkeypatch):
    """The latents of each inversion, the picture's first."""
    found, real = [], visctrl_passes.inverted_with_guidance
    monkeypatch.setattr(visctrl_passes, "inverted_with_guidance", lambda *args: found.append(real(*args)) or found[-1])
    return found


@pytest.mark.parametrize("inference", few_of([False, True], True))
def test_recorded_passes(inference, inversions):
    golden, params = case("visctrl/sd15_two_passes")
    first, later = params["passes"]
    given = {f"later_{name}": later[key] for name, key in (("steps", "steps"), ("start", "start_step"))}
    given["later_cfg"] = float(later["guidance"])
    with torch.inference_mode(inference):
        _, final = edited(golden, [golden["z0_tar"], golden["z0_ref"]], **settings(first, **given))
    for number, name in enumerate(("inv_tar", "inv_ref")):
        # the first evaluation, which moves nothing, is left out
        assert relative(torch.cat(inversions[number]), golden[f"pass0/{name}"][1:]) < 2e-2
    assert relative(final, golden["pass1/final"]) < 2e-2


@pytest.mark.parametrize("number", [0, 1])
def test_each_pass_by_itself(number):
    golden, params = case("visctrl/sd15_two_passes")
    begin = golden["z0_tar"] if number == 0 else golden["pass0/final"]
    _, final = edited(golden, [begin, golden["z0_ref"]], iterations=1, **settings(params["passes"][number]))
    assert relative(final, golden[f"pass{number}/final"]) < 2e-2


class _Replayed(comfy.samplers.Sampler):
    """Evaluates given latents, in the UNet's units, at the levels of a run."""

    def __init__(self, latents):
        self.latents = latents

    def sample(self, guider, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None,
               disable_pbar=False):  # fmt: skip
        for x, sigma in zip(self.latents, sigmas):
            guider(x[None].to(latent_image) * (1 + sigma**2) ** 0.5, sigma[None], **extra_args)
        return latent_image


@pytest.mark.parametrize("number", [0, 1])
def test_what_the_unet_gives_at_recorded_latents(number, monkeypatch):
    golden, params = case("visctrl/sd15_two_passes")
    tar, ref, x = (golden[f"pass{number}/{name}"] for name in ("inv_tar", "inv_ref", "x"))
    recorded = iter([list(tar[1:].split(1)), list(ref[1:].split(1))])
    monkeypatch.setattr(visctrl_passes, "inverted_with_guidance", lambda *args: next(recorded))
    monkeypatch.setattr(comfy.samplers, "ksampler", lambda name: _Replayed(x))
    one = params["passes"][number]
    calls, _ = edited(golden, [golden["z0_tar"], golden["z0_ref"]], iterations=1, **settings(one))
    assert len(calls) == one["steps"]
    for step, call in enumerate(calls):
        assert relative(call.x[:1], x[step : step + 1]) < 1e-5
        assert (call.cond - golden[f"pass{number}/eps_cond"][step]).abs().max() < 3e-5
        assert (call.uncond - golden[f"pass{number}/eps_uncond"][step]).abs().max() < 3e-5


@pytest.mark.parametrize(("start", "ending"), [(0, ""), (1, "_plain")])
def test_one_call_of_sdxl(start, ending, monkeypatch):
    golden, params = case("visctrl/sdxl_step")
    real = visctrl_passes.level_at
    timestep = int(golden["timestep"])
    monkeypatch.setattr(visctrl_passes, "level_at", lambda sampling, t: real(sampling, timestep if t else 0))
    recorded = iter([[golden["x_target"]] * 2, [golden["x_ref"]] * 2])
    monkeypatch.setattr(visctrl_passes, "inverted_with_guidance", lambda *args: next(recorded))
    given = {"steps": 2, "cfg": 5.0, "start_step": start, "start_block": params["start_layer"], "iterations": 1}
    (call,), _ = edited(golden, [golden["x_target"], golden["x_ref"]], "sdxl", **given)
    assert (call.cond - golden[f"eps_cond{ending}"]).abs().max() < 4e-5
    assert (call.uncond - golden[f"eps_uncond{ending}"]).abs().max() < 4e-5
