"""Tiny real models of the host, and the VAE and CLIP that feed them: what host tests run on."""

import json
from functools import cache
from types import SimpleNamespace

import comfy.model_management as mm
import comfy.model_patcher
import comfy.sample
import comfy.supported_models
import comfy.utils
import torch
from support.golden_data import case

HOST_CLASSES = {
    "sd15": comfy.supported_models.SD15,
    "sd2": comfy.supported_models.SD20,
    "sdxl": comfy.supported_models.SDXL,
}


def tiny_model(kind="sd15", dtype=torch.float32, in_channels=4, model_type=None, seed=None, **unet):
    """A MODEL of the host around the golden UNet (kind "sd15" or "sdxl"), or one of the same size (kind "sd2").

    in_channels 9 is an inpainting UNet; unet: further fields of its config; with a seed its weights are random, as they
    must be for other shapes.
    """
    weights, metadata = _recorded("tiny_sdxl_unet" if kind == "sdxl" else "tiny_sd15_unet")
    unet_config = json.loads(metadata["comfyui_unet_config"]) | {"dtype": dtype, "in_channels": in_channels, **unet}
    if kind == "sd2":
        unet_config |= {
            "context_dim": 1024,
            "use_linear_in_transformer": True,
            "num_heads": -1,
            "num_head_channels": 16,
        }
    config = HOST_CLASSES[kind](dict(unet_config))
    config.unet_config.update({k: unet_config[k] for k in ("num_heads", "num_head_channels")})
    config.set_inference_dtype(dtype, None)
    if model_type is None:
        base = config.get_model({}, "", device=None)
    else:
        base = comfy.model_base.BaseModel(config, model_type=model_type)
    if in_channels == 9:
        base.set_inpaint()
    if seed is None:
        names = comfy.utils.unet_to_diffusers(unet_config)
        state = {names[name]: tensor for name, tensor in weights.items()}
    else:
        state = random_weights(base.diffusion_model.state_dict(), seed)
    base.diffusion_model.load_state_dict({k: v.to(dtype) for k, v in state.items()})
    if kind == "sdxl":
        base.encode_adm = tiny_adm
    base.eval()
    return comfy.model_patcher.ModelPatcher(base, load_device=mm.get_torch_device(), offload_device=torch.device("cpu"))


_recorded = cache(case)


def random_weights(state, seed):
    """Matrices N(0, 1/fan_in), norm weights 1, biases 0."""
    generator = torch.Generator().manual_seed(seed)

    def fill(t):
        if t.ndim < 2:
            return t
        return torch.randn(t.shape, generator=generator) * t[0].numel() ** -0.5

    return {k: torch.zeros_like(v) if k.endswith("bias") else fill(torch.ones_like(v)) for k, v in state.items()}


def tiny_adm(**values):
    """The golden SDXL UNet's y: pooled text, then six size ids of 8 dims (its cases give one set for all rows)."""
    ids = values.get("time_ids")
    if ids is None:
        ids = torch.tensor([[values["height"], values["width"], 0, 0, values["height"], values["width"]]]).float()
    frequencies = torch.exp(-torch.log(torch.tensor(10000.0)) * torch.arange(4) / 4)
    angles = ids.flatten()[:, None] * frequencies
    embedded = torch.cat([angles.cos(), angles.sin()], 1).flatten()[None]
    pooled = values["pooled_output"]
    return torch.cat([pooled, embedded.to(pooled).expand(len(pooled), -1)], 1)


class StubVAE:
    """encode() hands out given latents (in the VAE's units), one per call."""

    def __init__(self, model, latents):
        self.latents = [latent[None] / model.model.latent_format.scale_factor for latent in latents]
        self.calls = 0

    def encode(self, pixels):
        self.calls += 1
        return self.latents[(self.calls - 1) % len(self.latents)]


class StubCLIP:
    """Texts are keys of a table of contexts (1, m, D); values may be (context, {further conditioning values})."""

    def __init__(self, table):
        self.table = table

    def tokenize(self, text):
        return text

    def encode_from_tokens_scheduled(self, tokens):
        entry = self.table[tokens]
        tensor, values = entry if isinstance(entry, tuple) else (entry, {})
        return [[tensor, dict(values)]]


def execute(node, **inputs):
    """Runs a node of the pack as the host does, with the defaults of its schema; returns its outputs."""
    schema = node.define_schema()
    defaults = {i.id: i.default for i in schema.inputs if getattr(i, "default", None) is not None}
    return node.execute(**{**defaults, **inputs}).result


class Recorder:
    """A DIFFUSION_MODEL wrapper that keeps, per call, the outputs of the UNet by role."""

    def __init__(self):
        self.calls = []

    def __call__(self, executor, x, *args, **kwargs):
        out = executor(x, *args, **kwargs)
        options = next(a for a in (*args, kwargs.get("transformer_options")) if isinstance(a, dict) and "uuids" in a)
        chunks = dict(zip(options["cond_or_uncond"], out.chunk(len(options["cond_or_uncond"]))))
        sigma = float(options["sigmas"][0])
        self.calls.append(SimpleNamespace(x=x, sigma=sigma, cond=chunks.get(0), uncond=chunks.get(1)))
        return out


def recording(model):
    """(clone of the MODEL, its Recorder)"""
    recorder = Recorder()
    clone = model.clone()
    clone.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "recorder", recorder)
    return clone, recorder


def sample(
    model,
    positive,
    negative=None,
    *,
    latent=(1, 4, 8, 8),
    sampler="euler",
    steps=3,
    cfg=5.0,
    seed=0,
    noise=None,
    sigmas=None,
    **kwargs,
):
    """Latents of one sampling run through the host's own guider."""
    latent = torch.zeros(latent) if isinstance(latent, tuple) else latent
    noise = comfy.sample.prepare_noise(latent, seed) if noise is None else noise
    negative = positive if negative is None else negative
    if sigmas is not None:
        chosen = comfy.samplers.ksampler(sampler)
        return comfy.sample.sample_custom(
            model, noise, cfg, chosen, sigmas, positive, negative, latent, disable_pbar=True, seed=seed, **kwargs
        )
    return comfy.sample.sample(
        model, noise, steps, cfg, sampler, "normal", positive, negative, latent, seed=seed, disable_pbar=True, **kwargs
    )


def conditioning(tensor, **values):
    return [[tensor, values]]
