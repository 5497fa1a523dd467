"""A published pipeline's sampling run, recorded step by step, repeated by the host's own sampler."""

from types import SimpleNamespace

import comfy.samplers
import torch
from support.models import conditioning, recording


def texts(golden, name):
    """The CONDITIONING of a case's text "target" or "neg"."""
    values = {}
    if f"pooled_{name}" in golden:
        values = {"pooled_output": golden[f"pooled_{name}"], "time_ids": golden["time_ids"]}
    return conditioning(golden[f"context_{name}"], **values)


def schedule_of(model, golden):
    """The noise levels of a case's DDIM run, with the one after its last step."""
    levels = model.get_model_object("model_sampling").sigmas
    if "alpha_bar" in golden:
        alpha = golden["alpha_bar"].double()
        sigmas = ((1 - alpha) / alpha).sqrt().float()
    else:
        sigmas = levels[golden["timesteps"].long()]
    if "alpha_bar_prev" in golden:
        last = golden["alpha_bar_prev"].double()[-1]
        return torch.cat([sigmas, ((1 - last) / last).sqrt().float()[None]])
    return torch.cat([sigmas, levels[:1]])


def repeat_run(model, golden, cfg):
    """calls: what the UNet made in each step; latents: after each, as the pipeline has them."""
    model, recorder = recording(model)
    reached, schedule = [], schedule_of(model, golden)
    sampling = model.get_model_object("model_sampling")
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(texts(golden, "target"), texts(golden, "neg") if "context_neg" in golden else [])
    guider.set_cfg(cfg)
    scale = (1 + schedule**2).sqrt()
    # the sampler scales unit noise by sqrt(1 + sigma^2) at full denoise, by sigma else: give it what makes x_T
    full = abs(float(schedule[0]) - float(sampling.sigma_max)) < 1e-3
    x = golden["x_T"] * scale[0] / (scale[0] if full else schedule[0])
    final = guider.sample(
        x,
        torch.zeros_like(x),
        comfy.samplers.ksampler("euler"),
        schedule,
        callback=lambda step, x0, x, total: reached.append(x / scale[step]),
        disable_pbar=True,
    )
    # the sampler reports x before each step, and the last one in the VAE's units
    latents = [*reached[1:], model.model.process_latent_in(final) / scale[-1]]
    return SimpleNamespace(calls=recorder.calls, latents=latents)
