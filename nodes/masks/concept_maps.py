"""What each place of a picture looks at, and what stands out of it, in one pass of a model without any words."""

import comfy.model_management as mm
import torch
import torch.nn.functional as F

from ...kernels.attention_map import head_mean_map
from ...kernels.masks import nearest_resize
from ...kernels.word_maps import word_map
from ..host.attention import plain_attention
from ..host.bare_unet import bare_unet
from ..host.blocks import attention_blocks, quarter_blocks
from ..host.calls import bare_forward, channels_of, clean_options, grid_of, heads_of, live_unet, with_replacements
from ..host.compiled import uncompiled
from ..host.layered_prompts import models_of
from ..host.text_rows import one_text
from ..host.unet_inputs import compute_dtype, unet_inputs
from ..host.when import unet_timestep, whole_timestep
from ..inversion.inversion import level_at

# The token of the empty prompt that says where things are: behind the start token its end.
_END = 1


class ConceptMaps:
    """Keeps, while a UNet runs for one picture, the mean of its self-attentions on a grid, and of its end token."""

    def __init__(self, blocks, grid):
        """blocks: {host key: level}; grid (h, w): of the maps that are wanted."""
        self.blocks, self.grid = blocks, grid
        self._looks, self._weight, self._ends = 0.0, 0.0, []

    def watching(self, options):
        """The options of the call."""
        ends = quarter_blocks(self.blocks) or self.blocks
        replacing = {("attn1", key): lambda standing: self._self_attention for key in self.blocks}
        replacing |= {("attn2", key): lambda standing: self._cross_attention for key in ends}
        return with_replacements(options, replacing)

    @property
    def looks(self):
        """(n, n), n = h * w: what each place looks at, sums of 1."""
        return self._looks / self._looks.sum(1, keepdim=True)

    @property
    def saliency(self):
        """(h, w) in 0..1: where the end token is read."""
        mean = torch.stack([_resized(end, self.grid) for end in self._ends]).mean(0)
        return (mean - mean.min()) / (mean.max() - mean.min()).clamp(min=torch.finfo(mean.dtype).tiny)

    def _self_attention(self, q, k, v, options):
        own = grid_of(options)
        mean = head_mean_map(q[:1], k[:1], heads_of(options))[0]
        weight = (own[0] * own[1] / (self.grid[0] * self.grid[1])) ** 0.5
        keys = _resized(mean.unflatten(1, own), self.grid).flatten(1)
        queries = nearest_resize(keys.mT.unflatten(1, own), self.grid).flatten(1).mT
        self._looks = self._looks + weight * queries
        return plain_attention(q, k, v, options)

    def _cross_attention(self, q, k, v, options):
        places = torch.zeros(1, k.shape[1], 1, device=k.device)
        places[0, _END] = 1
        self._ends.append(word_map(q[:1], k[:1], heads_of(options), places)[0, :, 0].unflatten(0, grid_of(options)))
        return plain_attention(q, k, v, options)


def concept_maps(model, latent, text, grid):
    """The ConceptMaps on a grid (h, w) of a picture's latent (1, C, h, w) without noise, in the sampler's units.

    text: (context, values) of the empty prompt. The model runs alone: its weights with their patches, no patches of
    attention.
    """
    base = model.model
    cells = grid[0] * grid[1]
    needed = base.memory_required([1, *latent.shape[1:]]) + 12 * cells**2
    mm.load_models_gpu([model, *models_of(text)], memory_required=needed)
    with uncompiled(), bare_unet(base):
        device = model.load_device
        inputs = unet_inputs(base, *text, latent)
        like = torch.empty(0, device=device, dtype=compute_dtype(base))
        batch = one_text(inputs, live_unet(base), like)
        maps = ConceptMaps(attention_blocks(live_unet(base)), grid)
        level = level_at(base.model_sampling, 0)
        timestep = torch.full((1,), unet_timestep(level, base.model_sampling), device=device)
        options = batch.read_by(clean_options(level, device), whole_timestep(level, base.model_sampling))
        options = maps.watching(options)
        picture = inputs.beside(latent.to(device), channels_of(base), latent.to(device)).to(like)
        bare_forward(base)(picture, timestep, batch.context, batch.y, None, options)
    return maps


def _resized(maps, grid):
    """(..., h, w) on another grid: bilinear, and where that is coarser with antialias."""
    if tuple(maps.shape[-2:]) == tuple(grid):
        return maps
    finer = maps.shape[-2] > grid[0]
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    resized = F.interpolate(flat, size=tuple(grid), mode="bilinear", antialias=finer, align_corners=False)
    return resized.reshape(*maps.shape[:-2], *grid)
