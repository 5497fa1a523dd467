"""Re-denoise: golden noise from the diffusion model itself (arXiv 2411.09502, section 3.2), about three UNet calls."""

from dataclasses import dataclass

import comfy.model_sampling
import comfy.samplers
import torch

from ...kernels.noise_prompt import redenoised
from ..host.calls import noise_levels
from ..host.messages import input_error, warn_user
from ..host.node_pictures import running_node
from .golden_noise_model import without_golden_noise
from .noise_picture import show_change


@dataclass(frozen=True)
class RedenoiseSettings:
    """How to re-denoise."""

    guidance: float = 5.5  # CFG of the step forward
    inverse_guidance: float = 1.0  # CFG of the step back
    steps: int = 50  # the size of the step: one of so many
    repeats: int = 1


class Redenoised:
    """A NOISE of the host: another NOISE's noise after one step with strong and one step back with weak guidance.

    The MODEL runs with all its patches, through the host's own guider. One object per execution of a node.
    """

    def __init__(self, noise, model, positive, negative, settings):
        """noise: a NOISE; model: a MODEL; positive, negative: CONDITIONINGs. Raises ValueError for an empty prompt and
        for a model that does not make pictures by predicting noise or v.
        """
        check_text(positive, "positive")
        check_text(negative, "negative")
        self.noise, self.settings = noise, settings
        self.model = without_golden_noise(model)
        self.conds = positive, negative
        self.sigmas = _first_levels(model, settings.steps)
        self.node = running_node()

    @property
    def seed(self):
        return getattr(self.noise, "seed", 0)

    def generate_noise(self, latent):
        """Unit variance (nearly), on the CPU, shape of latent["samples"]; ValueError for a nested latent.

        Where the model gives no numbers, the plain noise.
        """
        plain = self.noise.generate_noise(latent)
        if getattr(plain, "is_nested", False):
            raise input_error(
                "Re-denoise needs a single latent, this one is nested (video with audio); use plain noise"
            )
        if not torch.any(plain):
            return plain
        golden = self.golden(plain)
        if not torch.isfinite(golden).all():
            warn_user(
                "Re-denoise got NaN or infinite values from the model, so the noise stays plain; start ComfyUI with "
                "--fp32-unet, and check the prompts"
            )
            return plain
        show_change(plain, golden, self.node)
        return golden

    def golden(self, plain):
        """What the model makes of a plain noise, numbers or not: shape and dtype of `plain`."""
        noise = plain
        for _ in range(self.settings.repeats):
            noise = self._once(noise)
        return noise.to(plain)

    def _once(self, noise):
        guider = comfy.samplers.CFGGuider(self.model)
        guider.set_conds(*self.conds)
        there_and_back = _ThereAndBack((self.settings.guidance, self.settings.inverse_guidance))
        empty = torch.zeros_like(noise)
        guider.sample(noise, empty, there_and_back, self.sigmas, disable_pbar=True, seed=self.seed)
        return there_and_back.golden


class _ThereAndBack(comfy.samplers.Sampler):
    """A sampler of the host for the two noise levels; the golden noise is kept aside, in the units of noise."""

    def __init__(self, guidances):
        self.guidances = guidances
        self.golden = None

    def sample(self, guider, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None,
               disable_pbar=False):  # fmt: skip
        def eps(x, sigma, back):
            guider.set_cfg(self.guidances[back])
            denoised = guider(x, torch.full((len(x),), sigma, device=x.device), **extra_args)
            return (x - denoised) / sigma

        self.golden = redenoised(noise, eps, *(float(sigma) for sigma in sigmas))
        return self.golden


def _first_levels(model, steps):
    """The first two noise levels of the host's ddim_uniform schedule, whatever the picture is sampled with later."""
    sampling = model.get_model_object("model_sampling")
    if (
        not isinstance(sampling, comfy.model_sampling.EPS)
        or isinstance(sampling, comfy.model_sampling.IMG_TO_IMG)
        or noise_levels(sampling) is None
        # of sound 1, of video 3
        or getattr(model.model.latent_format, "latent_dimensions", 2) != 2
    ):
        name = type(model.model).__name__
        raise input_error(
            f"Re-denoise needs a picture model that predicts noise or v; this one is {name}: connect an SD1.5, SD2.x "
            "or SDXL checkpoint"
        )
    return comfy.samplers.calculate_sigmas(sampling, "ddim_uniform", steps)[:2]


def check_text(conditioning, label):
    """ValueError, naming the prompt by its label, for a CONDITIONING without a text."""
    tensor = conditioning[0][0] if conditioning else None
    if tensor is None or 0 in tensor.shape:
        raise input_error(f"{label} is empty; connect a CLIP Text Encode")
