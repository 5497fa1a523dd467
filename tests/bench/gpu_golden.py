"""Recorded cases of the published code on whatever device the host computes, as errors of what the UNet predicts."""

import torch
from concept_conductor import test_concept_conductor_golden as conductor
from image_prompts import test_mip_adapter_golden as mip
from reference_attention import test_mrsa_golden as mrsa
from support import golden_runs
from support.compare import relative
from support.concepts import golden_case, golden_conductor, text_of
from support.golden_data import case
from support.image_prompts import patched
from support.models import recording, sample, tiny_model

# Relative errors above these are faults.
LIMITS = {torch.float32: 2e-3, torch.float16: 5e-2}


class Patches:
    """Attributes that stand otherwise until `undo`."""

    def __init__(self):
        self._standing = []

    def setattr(self, target, name, value):
        self._standing.append((target, name, getattr(target, name)))
        setattr(target, name, value)

    def undo(self):
        for target, name, value in reversed(self._standing):
            setattr(target, name, value)


def cases():
    """[(name, what gives its errors: (dtype) -> those of the prompt and of the negative)]."""
    found = [(f"MRSA {name}", _mrsa, name) for name in mrsa.EPS_CASES]
    found += [(f"MIP-Adapter {name}", _mip, name) for name in mip.CASES]
    found += [(f"Concept Conductor {name}", _conductor, name) for name in conductor.STEPS]
    return [(title, lambda dtype, ask=ask, name=name: _asked(ask, name, dtype)) for title, ask, name in found]


def _asked(ask, name, dtype):
    patches = Patches()
    try:
        made, wanted = ask(name, dtype, patches)
    finally:
        patches.undo()
    return tuple(relative(one.float().cpu(), other) for one, other in zip(made, wanted, strict=True))


def _mrsa(name, dtype, patches):
    golden, params = case(f"mrsa/{name}")
    model = tiny_model(params["unet"].removeprefix("tiny_"), dtype)
    sigma = float(model.get_model_object("model_sampling").sigma(golden["timestep"]))
    scale = (1 + sigma**2) ** 0.5
    noises = lambda seed, index, step, like: golden["x_ref"][index][None] * scale / sigma  # noqa: E731
    ours = mrsa.patched(model, golden, params, patches, True, noises)
    texts = golden_runs.texts(golden, "target"), golden_runs.texts(golden, "neg")
    call = _one_call(ours, texts, golden["x_target"], sigma)
    return (call.cond, call.uncond), (golden["eps_cond"], golden["eps_uncond"])


def _mip(name, dtype, patches):
    golden, params = case(f"mip_adapter/{name}")
    model = tiny_model(params["unet"].split("_")[1], dtype)
    sigma = float(model.get_model_object("model_sampling").sigma(torch.tensor(params["timestep"])))
    ours = patched(model, golden, params, patches)
    call = _one_call(ours, (mip.texts(golden, "cond"), mip.texts(golden, "uncond")), golden["latents"], sigma)
    return (call.cond, call.uncond), (golden["eps_cond"], golden["eps_uncond"])


def _conductor(name, dtype, patches):
    golden, params = golden_case(name)
    model = tiny_model(params["model"].removeprefix("tiny_"), dtype)
    ours = golden_conductor(model, golden, params, 1, guidance_weight=0.0)
    sigma = float(model.get_model_object("model_sampling").sigmas[params["timestep"]])
    texts = text_of(golden, "base", params), text_of(golden, "neg", params)
    call = _one_call(ours, texts, golden["latents_guided"], sigma)
    return (call.cond, call.uncond), golden["eps/injected"].split(1)


def _one_call(model, texts, latents, sigma):
    """What the UNet makes of VP latents at a noise level."""
    model, recorder = recording(model)
    noise = latents * (1 + sigma**2) ** 0.5 / sigma
    sample(model, *texts, latent=tuple(latents.shape), noise=noise, sigmas=torch.tensor([sigma, 0.0]))
    (call,) = recorder.calls
    return call
