"""PILOT's series: gradient steps on a latent, so that the model's own guess of the picture keeps what is to stay and
puts the prompt's words into the hole (arXiv 2407.08019, section 4).
"""

from dataclasses import dataclass

import comfy.model_management as mm
import torch

from ...kernels.inpainting_loss import background_loss, pull_loss, word_share
from ...kernels.masks import WHOLE
from ..host.attention import plain_attention
from ..host.blocks import attention_blocks
from ..host.calls import channels_of, clean_options, forward_of, grid_of, heads_of, live_unet, with_replacements
from ..host.gradients import differentiable
from ..host.hooked_weights import hook_as
from ..host.packed_weights import unpacking
from ..host.text_rows import text_batch, text_rows
from ..host.unet_inputs import Inputs, compute_dtype, input_root, processed
from ..host.when import unet_timestep, whole_timestep
from ..latent_guidance.latent_gradient import (
    OF_ALL_LAYERS,
    Guided,
    differentiable_options,
    gradient_fits,
    gradient_through,
)
from .hole import of_rows
from .masked_text import only_first

_GUIDED = Guided("PILOT", "operations")
_LONGER = (
    "PILOT: prompt is longer than the positive prompt, so its last words pull nothing into the hole; copy the positive "
    "prompt's text into it"
)
# The published weight of the words' loss is given for a hole beside a picture of so many cells, and grows with the
# timestep from a tenth at 300.
_CELLS, _LATE, _LAST, _FLOOR = 1499, 300, 999, 0.1


@dataclass(frozen=True)
class PilotSettings:
    """How a latent is moved."""

    operations: int = 10
    interval: int = 0  # 0: a tenth of the steps
    gamma: float = 0.8
    coef: float = 150.0
    lr: float = 0.025
    lr_first: float = 0.007
    momentum: float = 0.7
    seed: int = 0

    def rate(self, timestep, first):
        """The length of a gradient step at a timestep."""
        return self.lr_first if first else self.lr * 1.002 ** (1000 - timestep)

    def pull(self, timestep, kept):
        """How much the words' loss counts at a timestep, for an image with so many kept cells."""
        late = max(0.0, timestep - _LATE) / (_LAST - _LATE)
        return self.coef * kept / _CELLS * (_FLOOR + (1 - _FLOOR) * late)


class Series:
    """The gradient steps at one step of the sampler."""

    def __init__(self, step, entry, scene, settings, first):
        """entry: the positive prompt that the guider has prepared; scene: what is kept of each picture."""
        self.step, self.scene, self.settings = step, scene, settings
        self.sampling = step.base.model_sampling
        self.sigma = torch.full((1,), step.moment.sigma, device=step.x.device)
        self.timestep = whole_timestep(step.moment.sigma, self.sampling)
        self.rate = settings.rate(self.timestep, first)
        self.entry = entry

    def moved(self):
        """The latents (b, C, h, w) as the UNet takes them, after the series, and before it."""
        hook_as(self.step, self.entry)
        before = self.sampling.calculate_input(self.sigma, self.step.x).float()
        z, speed = before.clone(), torch.zeros_like(before)
        for _ in range(self.settings.operations):
            mm.throw_exception_if_processing_interrupted()
            speed = self.settings.momentum * speed - self.rate * self._gradient(z)
            z = z + speed
        return z, before

    def _gradient(self, z):
        rows = len(z)
        if rows == 1 or gradient_fits(self.step.base, rows, z, OF_ALL_LAYERS):
            try:
                return self._gradient_of(z, range(rows))
            except mm.OOM_EXCEPTION:
                if rows == 1:
                    raise
                mm.soft_empty_cache()
        # the loss is a sum over images, and no row sees another
        return torch.cat([self._gradient_of(z[i : i + 1], [i]) for i in range(rows)])

    def _gradient_of(self, z, images):
        base, dtype, rows = self.step.base, compute_dtype(self.step.base), len(z)
        unet, images = live_unet(base), list(images)
        inputs = _of_images(processed(self.entry), len(self.step.x), images)
        like = torch.empty(0, device=z.device, dtype=dtype)
        batch = text_batch([text_rows(inputs, rows, like)], attention_blocks(unet))
        timesteps = torch.full((rows,), unet_timestep(self.step.moment.sigma, self.sampling), device=z.device)
        clean = clean_options(self.step.moment.sigma, z.device, 1, rows, self.step.run.schedule({}))
        options = batch.read_by(differentiable_options(clean), self.timestep)
        more = inputs.behind(z.to(dtype), channels_of(base))
        with differentiable():
            leaf = z.clone().requires_grad_(True)
            seen = _Seen(self.scene, self.step.run, images, tuple(z.shape[-2:]))
            options = with_replacements(options, {("attn2", block): seen.reading(block) for block in self.scene.all})
            forward = forward_of(unpacking(unet, z.device))
            out = forward(torch.cat([leaf.to(dtype), more], 1), timesteps, batch.context, batch.y, None, options)
            return gradient_through(self._loss_of(seen, z, images), [out, leaf, *seen.queries], leaf, _GUIDED)

    def _loss_of(self, seen, z, images):
        scene, sigma = self.scene, self.sigma
        keep, picture = (of_rows(one, len(self.step.x))[images].to(z.device) for one in (scene.keep, scene.picture))
        pull = z.new_tensor([self.settings.pull(self.timestep, float(one.sum())) for one in keep])

        def loss_of(out, latent, *queries):
            denoised = self.sampling.calculate_denoised(sigma, out, latent * input_root(self.sampling, sigma))
            loss = background_loss(denoised, picture, keep)
            for query, (key, inside, heads) in zip(queries, seen.others, strict=True):
                words = [place for place in scene.words if place < key.shape[1]]
                if len(words) < len(scene.words):
                    self.step.run.tell(_LONGER)
                share = word_share(query, key.to(query), words, heads)
                loss = loss + pull / len(scene.guiding) * pull_loss(share, inside)
            return loss.sum()

        return loss_of


class _Seen:
    """The cross-attentions of one forward: what they read in the hole alone, and the queries of those that guide."""

    def __init__(self, scene, run, images, size):
        self.scene, self.run, self.images, self.size = scene, run, images, size
        self.queries, self.others = [], []

    def reading(self, block):
        def read(q, k, v, options):
            place = self.size, grid_of(options), WHOLE, q.device
            inside, some, all_of_them = self.scene.hole.kept(self.run, self.images, *place)
            if self.scene.words and block in self.scene.guiding and some and not all_of_them:
                self.queries.append(q)
                self.others.append((k.detach(), inside, heads_of(options)))
            if all_of_them:
                return plain_attention(q, k, v, options)
            found, first = plain_attention(q, k, v, options), plain_attention(q, k, only_first(v, k.shape[1]), options)
            return torch.where(inside[..., None], found, first)

        return lambda inner: read


def _of_images(inputs, count, images):
    """The Inputs of some of `count` images: rows of several texts take turns over them."""
    if len(images) == count:
        return inputs
    context, y, concat, values = (
        None if one is None else of_rows(one, count)[images]
        for one in (inputs.context, inputs.y, inputs.concat, inputs.values)
    )
    # those of the first text alone
    first = all(image % len(inputs.context) == 0 for image in images)
    return Inputs(context, y, concat, inputs.contexts if first else None, values)
