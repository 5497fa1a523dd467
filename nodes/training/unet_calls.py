"""The UNet as a training calls it: with noised latents and texts, with nobody's patches, and with a gradient."""

import comfy.model_sampling
import torch
from comfy.ldm.modules.attention import attention_pytorch

from ..host.blocks import attention_blocks
from ..host.calls import clean_options, forward_of, noise_levels, with_attention_override, with_patches
from ..host.compiled import uncompiled
from ..host.contexts import FixedContexts
from ..host.latents import pixels_of
from ..host.layered_prompts import ContextPatch
from ..host.messages import input_error
from ..host.unet_inputs import compute_dtype
from .trained_texts import batched_contexts

# The noise levels of SD, which timesteps count.
_LEVELS = 1000


class TrainedUNet:
    """A loaded UNet and what it predicts."""

    def __init__(self, base, unet, sampling, device):
        """sampling: the MODEL's own; ValueError for one that predicts neither noise nor velocity, or other levels."""
        self.base, self.unet, self.device = base, unet, device
        kinds = comfy.model_sampling
        if not isinstance(sampling, kinds.EPS) or isinstance(sampling, kinds.EDM | kinds.X0):
            raise input_error(
                "this model predicts neither noise nor velocity, which is what training reads; connect an ordinary "
                "SD1.5, SD2.x or SDXL checkpoint"
            )
        counted, logarithms = kinds.ModelSamplingDiscrete, kinds.ModelSamplingDiscreteEDM
        if not isinstance(sampling, counted) or isinstance(sampling, logarithms):
            raise input_error(
                f"this model reads the noise level itself, as CosXL and Playground do, and training counts {_LEVELS} "
                "timesteps; connect an ordinary SD1.5, SD2.x or SDXL checkpoint, without ModelSamplingContinuousEDM"
            )
        self.velocity = isinstance(sampling, kinds.V_PREDICTION)
        levels = noise_levels(sampling).detach().cpu().double()
        if len(levels) != _LEVELS:
            raise input_error(
                f"this model samples by {len(levels)} noise levels, as with ModelSamplingDiscrete's lcm, and training "
                f"needs {_LEVELS}; connect the MODEL from before that node, or an ordinary checkpoint"
            )
        self.alphas = (1 / (1 + levels.square())).float().to(device)
        self.blocks = attention_blocks(unet)

    def noised(self, latents, noise, timesteps):
        """(x_t, what the model should predict of it): sqrt(a) x + sqrt(1 - a) n; n, or sqrt(a) n - sqrt(1 - a) x."""
        alpha = self.alphas[timesteps].to(latents)[:, None, None, None]
        mixed = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        return mixed, alpha.sqrt() * noise - (1 - alpha).sqrt() * latents if self.velocity else noise

    def predicted(self, mixed, timesteps, texts, sizes=None, maps=None):
        """What the model predicts (b, 4, h, w) float32 for x_t, with a TrainedText per row.

        sizes (b, 6): of SDXL; maps: KeptMaps that look on.
        """
        like = torch.empty(0, dtype=compute_dtype(self.base), device=self.device)
        contexts = batched_contexts(texts, like)
        steps = timesteps.to(self.device).float()
        options = with_attention_override(clean_options(0.0, self.device, rows=len(mixed)), _exact)
        if contexts.shape[1] > 1:
            rows = [([row], FixedContexts(one)) for row, one in enumerate(contexts)]
            layered = ContextPatch(rows, self.blocks, len(mixed), 0.0)
            options = with_patches(options, {"attn2_patch": layered})
        if maps is not None:
            options = maps.watching(options)
        y = self._labels(texts, sizes, mixed.shape, like)
        with uncompiled():
            out = forward_of(self.unet)(mixed.to(like), steps, contexts[:, 0], y, None, options)
        return out.float()

    def _labels(self, texts, sizes, shape, like):
        if getattr(self.unet, "num_classes", None) is None:
            return None
        if sizes is None:
            height, width = pixels_of(shape[-2:])
            sizes = torch.tensor([[height, width, 0, 0, height, width]]).expand(shape[0], -1)
        names = ("height", "width", "crop_h", "crop_w", "target_height", "target_width")
        rows = [
            self.base.encode_adm(pooled_output=text.pooled, device=like.device, **dict(zip(names, own, strict=True)))
            for text, own in zip(texts, sizes.tolist(), strict=True)
        ]
        return torch.cat([row.to(like) for row in rows])


def _exact(function, q, k, v, heads, *args, **kwargs):
    # others have no way back, or cut their sums by what memory is free
    return attention_pytorch(q, k, v, heads, *args, **kwargs)
