"""What the host makes of a conditioning for one model: the inputs of its UNet."""

from dataclasses import dataclass

import torch

from .layered_prompts import contexts_of
from .messages import input_error


@dataclass(frozen=True, eq=False)
class Inputs:
    """One conditioning as the UNet takes it, for one row. Tensors stay on the CPU, in float32."""

    context: torch.Tensor  # (1, T, D)
    y: torch.Tensor | None = None  # (1, A): pooled text and size ids
    concat: torch.Tensor | None = None  # (1, C', h, w): further input channels of inpainting and editing UNets
    layers: torch.Tensor | None = None  # (L, T, D): the context of each cross-attention, in order of execution

    def beside(self, latent):
        """The UNet's input: a latent (1, C, h, w) with the further channels behind its own, where there are any."""
        return latent if self.concat is None else torch.cat([latent, self.concat.to(latent)], 1)


def unet_inputs(base, cross_attn, values, latent, prompt_type="positive", picture=None):
    """The Inputs of one entry of a CONDITIONING beside a latent (1, C, h, w) in the sampler's units.

    values: the entry's dictionary; picture: the latent in the VAE's units, for models that also take it as an input.
    """
    height, width = (8 * side for side in latent.shape[-2:])
    picture = torch.zeros_like(latent) if picture is None else picture
    made = base.extra_conds(
        **{"width": width, "height": height, "prompt_type": prompt_type} | values,
        cross_attn=cross_attn,
        noise=latent,
        device=latent.device,
        latent_image=latent,
        concat_latent_image=picture,
        concat_mask=torch.zeros_like(picture[:, :1]),
    )
    context, y, concat = (
        made[name].cond.float().cpu() if name in made else None for name in ("c_crossattn", "y", "c_concat")
    )
    return Inputs(context, y, concat, _on_cpu(contexts_of(cross_attn, values)))


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


def _on_cpu(tensor):
    return None if tensor is None else tensor.float().cpu()


def compute_dtype(base):
    """The dtype in which a model's UNet computes."""
    return base.manual_cast_dtype or base.get_dtype()


def processed(entry):
    """The Inputs of a conditioning that the host has prepared for a run; rows as it has them."""
    found = {name: one.cond for name, one in entry["model_conds"].items() if name in ("c_crossattn", "y", "c_concat")}
    context = found["c_crossattn"]
    return Inputs(context, found.get("y"), found.get("c_concat"), contexts_of(entry.get("cross_attn"), entry))
