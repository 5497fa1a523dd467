"""What the host makes of a conditioning for one model: the inputs of its UNet."""

from dataclasses import dataclass

import comfy.utils
import torch

from .contexts import Contexts
from .latents import pixels_of
from .layered_prompts import contexts_of
from .messages import input_error
from .paired_rows import contexts_taken_apart, taken_apart


@dataclass(frozen=True, eq=False)
class Inputs:
    """One conditioning as the UNet takes it, for one row. Tensors stay on the CPU, in float32."""

    context: torch.Tensor | None  # (1, T, D); None of a picture without a text
    y: torch.Tensor | None = None  # (1, A): pooled text and size ids
    concat: torch.Tensor | None = None  # (1, C', h, w): further input channels of inpainting and editing UNets
    contexts: Contexts | None = None  # where layers or timesteps read other ones
    values: torch.Tensor | None = None  # (1, T, D): what stands for the values where the context is of keys alone

    def beside(self, latent, channels=0, picture=None):
        """The UNet's input: a latent (b, C, h, w) with the further channels behind its own, where there are any.

        channels: how many the UNet takes. Where other packs have added some (relighting), these show `picture`, the
        latent (1, C, h, w) without noise; what is still missing is zero.
        """
        return torch.cat([latent, self.behind(latent, channels, picture)], 1)

    def behind(self, latent, channels, picture=None):
        """Those further channels alone: (b, channels - C, h, w)."""
        rows = len(latent)
        parts = [latent[:, :0]]
        if self.concat is not None:
            parts.append(comfy.utils.repeat_to_batch_size(self.concat, rows).to(latent))
        missing = channels - latent.shape[1] - sum(part.shape[1] for part in parts)
        if missing > 0:
            shown = latent[:, :0] if picture is None else picture[:, :missing].expand(rows, -1, -1, -1).to(latent)
            parts += [shown, shown.new_zeros(rows, missing - shown.shape[1], *latent.shape[2:])]
        return torch.cat(parts, 1)


def input_root(model_sampling, sigma):
    """By how much a latent in the sampler's units is larger than as the UNet takes it, at a noise level sigma, a number
    or a tensor: sqrt(sigma^2 + sigma_data^2), of which most models have 1.
    """
    return (getattr(model_sampling, "sigma_data", 1.0) ** 2 + sigma**2) ** 0.5


def unet_inputs(base, cross_attn, values, latent, prompt_type="positive", picture=None):
    """The Inputs of one entry of a CONDITIONING beside a latent (1, C, h, w) in the sampler's units.

    values: the entry's dictionary; picture: the latent in the VAE's units, for models that also take it as an input.
    """
    height, width = pixels_of(latent.shape[-2:])
    # a prompt from an inpainting node has a picture of its own
    given = {"width": width, "height": height, "prompt_type": prompt_type} | values | _shown(latent, picture)
    made = base.extra_conds(**given | {"cross_attn": cross_attn})
    context, y, concat = (
        made[name].cond.float().cpu() if name in made else None for name in ("c_crossattn", "y", "c_concat")
    )
    context, of_values = taken_apart(context)
    contexts = contexts_of(cross_attn, values)
    if contexts is not None:
        contexts = contexts_taken_apart(contexts.to(torch.empty(0)))
    return Inputs(context, y, concat, contexts, of_values)


def picture_inputs(base, latent, picture=None):
    """As `unet_inputs`, of a picture that has no text of its own."""
    return Inputs(None, concat=_on_cpu(base.concat_cond(**_shown(latent, picture))))


def _on_cpu(tensor):
    return None if tensor is None else tensor.float().cpu()


def _shown(latent, picture):
    picture = torch.zeros_like(latent) if picture is None else picture
    return {
        "noise": latent,
        "device": latent.device,
        "latent_image": latent,
        "concat_latent_image": picture,
        "concat_mask": torch.zeros_like(picture[:, :1]),
    }


def check_prompt(model, conditioning, label):
    """ValueError, naming the prompt by its label, for a CONDITIONING that a MODEL cannot read."""
    tensor = conditioning[0][0]
    if tensor is None or tensor.ndim != 3 or 0 in tensor.shape:
        raise input_error(f"{label} holds no text; connect a CLIP Text Encode")
    width = model.model.model_config.unet_config.get("context_dim")
    if width is not None and tensor.shape[-1] != width:
        raise input_error(
            f"{label} is {tensor.shape[-1]} wide, the model reads {width}; encode it with the CLIP of the model's own "
            "checkpoint"
        )


def compute_dtype(base):
    """The dtype in which a model's UNet computes."""
    return base.manual_cast_dtype or base.get_dtype()


def bytes_of_call(base, rows, shape):
    """Bytes that a call of a model's UNet with so many rows of latents (b, C, h, w) takes, by the host's own rule."""
    return base.memory_required([rows, *shape[1:]]) * 1.5


def processed(entry):
    """The Inputs of a conditioning that the host has prepared for a run; rows as it has them."""
    found = {name: one.cond for name, one in entry["model_conds"].items() if name in ("c_crossattn", "y", "c_concat")}
    context, values = taken_apart(found["c_crossattn"])
    contexts = contexts_taken_apart(contexts_of(entry.get("cross_attn"), entry))
    return Inputs(context, found.get("y"), found.get("c_concat"), contexts, values)
