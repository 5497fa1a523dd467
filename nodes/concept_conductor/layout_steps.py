"""Layout guidance of one run: how the latent moves so that the picture takes the layout of another."""

import math

import comfy.model_management as mm
import comfy.utils
import torch

from ...kernels.layout_guidance import layout_loss
from ..host.bank import bank_of
from ..host.calls import bare_forward, clean_options
from ..host.content_keys import digest, weights_key
from ..host.gradients import differentiable
from ..host.partial_pass import run_to
from ..host.text_rows import TextRows, one_text, text_batch, text_rows, tokens_together
from ..host.unet_inputs import compute_dtype, processed, unet_inputs
from ..host.when import ROUNDING
from ..latent_guidance.latent_gradient import differentiable_options, gradient_fits, gradient_of


class LayoutGuidance:
    """The gradient steps of one run."""

    def __init__(self, conducting, settings, layout_text):
        """conducting: what lives for the run; layout_text: (context, values) of what the layout picture shows."""
        self.conducting, self.settings, self.layout_text = conducting, settings, layout_text
        self._text = None
        self._done = set()

    def shift(self, step):
        """What to add to the sampler's latent, or None in steps without guidance."""
        if not self._due(step):
            return None
        mm.throw_exception_if_processing_interrupted()
        self._done.add(step.moment.step)
        gradient = self._gradient(step)
        # The gradient is taken with respect to z = x / root, the latent as the UNet takes it. "vp" moves z by -w g, so
        # x by root times that; "sigma" moves x along its own gradient, which is g / root.
        root = math.sqrt(1 + step.moment.sigma**2)
        scale = root if self.settings.gradient_space == "vp" else 1 / root
        return (gradient * (-self.settings.guidance_weight * scale)).to(step.x)

    def _due(self, step):
        moment, settings = step.moment, self.settings
        at_entry = moment.step_sigma * (1 - ROUNDING) <= moment.sigma <= moment.step_sigma * (1 + ROUNDING)
        inside = (
            moment.step <= settings.guidance_end * step.steps + 1e-6 and not moment.step % settings.guidance_interval
        )
        return at_entry and inside and moment.sigma > 0 and moment.step not in self._done

    def _gradient(self, step):
        """Of the layout loss with respect to the latent as the UNet takes it (B, 4, h, w), in float32."""
        base = step.base
        device, dtype = step.x.device, compute_dtype(base)
        reference = self._reference_keys(step, dtype)
        image = self._image_inputs(step)
        if image is None:
            return torch.zeros_like(step.x)
        factor = self.settings.custom_factor / max(1, self.conducting.masks.count)
        weights = {None: 1.0} | {path: factor * len(path.concepts) for path in self.conducting.paths if factor}
        texts = {path: self._text_rows(path, image, step.x, device, dtype) for path in weights}
        groups = [[path] for path in weights if path in self.conducting.own]
        together = [path for path in weights if path not in self.conducting.own]
        if self._fits(step, texts, together):
            try:
                return self._summed(step, image, texts, weights, [together, *groups], reference)
            except mm.OOM_EXCEPTION:
                mm.soft_empty_cache()
        return self._summed(step, image, texts, weights, [*([path] for path in together), *groups], reference)

    def _summed(self, step, image, texts, weights, groups, reference):
        # the loss is a sum over paths, so its gradient is one too
        return sum(
            self._gradient_of(step, image, {path: texts[path] for path in group}, weights, reference)
            for group in groups
        )

    def _gradient_of(self, step, image, texts, weights, reference):
        mm.throw_exception_if_processing_interrupted()
        conducting, sampling = self.conducting, step.base.model_sampling
        x, rows, many = step.x, len(step.x), len(texts)
        dtype = compute_dtype(step.base)
        sigma = torch.full((rows,), step.moment.sigma, device=x.device)
        z = sampling.calculate_input(sigma, x)
        timesteps = sampling.timestep(sigma).float().repeat(many)
        concat = None
        if image.concat is not None:
            concat = comfy.utils.repeat_to_batch_size(image.concat, rows).to(x.device, dtype)
        foreground = self._foreground(step)
        with conducting.weights(texts, rows, step.base) as unet, differentiable():
            leaf = z.float().clone().requires_grad_(True)
            inputs = leaf.to(dtype) if concat is None else torch.cat([leaf.to(dtype), concat], 1)
            batch = text_batch(list(texts.values()), conducting.layers.levels)
            inputs = inputs.repeat(many, 1, 1, 1), timesteps, batch.context, batch.y
            keys = run_to(conducting.layers.guidance, unet, inputs, self._options(step, batch)).k
            factors = torch.tensor([weights[path] for path in texts], device=x.device)

            def loss_of(keys):
                return layout_loss(keys.unflatten(0, (many, rows)), reference, factors, foreground)

            return gradient_of(loss_of, keys, leaf)

    def _options(self, step, batch):
        return batch.read_by(differentiable_options(clean_options(step.moment.sigma, step.x.device)))

    def _foreground(self, step):
        """How many of the user's masks cover each token: (1, n), or None where all tokens count once."""
        if not self.settings.use_loss_mask:
            return None
        grid = self.conducting.grid_of(self.conducting.layers.guidance)
        return self.conducting.masks.first_at(grid, step.x.device).sum(0).float()

    def _image_inputs(self, step):
        """The Inputs of the first positive prompt that acts at this noise level."""
        for entry in step.run.conds().get("positive") or ():
            start, end = (entry.get(name) for name in ("timestep_start", "timestep_end"))
            sigma = step.moment.sigma
            if (start is None or sigma <= start) and (end is None or sigma >= end):
                return processed(entry)
        return None

    def _text_rows(self, path, image, x, device, dtype):
        like = torch.empty(0, device=device, dtype=dtype)
        inputs = self.conducting.texts.of(path, "cond") if path is not None else None
        if inputs is not None:
            return text_rows(inputs, len(x), like)
        context = comfy.utils.repeat_to_batch_size(image.context, len(x)).to(like)
        y = comfy.utils.repeat_to_batch_size(image.y, len(x)).to(like) if image.y is not None else None
        return TextRows(context, y, image.layers.to(like) if image.layers is not None else None)

    def _fits(self, step, texts, paths):
        lengths = [texts[path].context.shape[1] for path in paths]
        return bool(tokens_together(lengths)) and gradient_fits(step.base, len(paths) * len(step.x), step.x)

    def _reference_keys(self, step, dtype):
        """The layout picture's keys (n, c) float32 at this noise level: from an earlier run where there was one."""
        sampling, device = step.base.model_sampling, step.x.device
        sigma = torch.full((1,), step.moment.sigma, device=device)
        timestep = sampling.timestep(sigma).float()
        latent = self.conducting.layout_latent(step.moment.step, int(timestep[0]))
        if self._text is None:
            tensor, values = self.layout_text
            self._text = unet_inputs(step.base, tensor, values, latent.float().cpu())
        block = self.conducting.layers.guidance
        bank, budget, found = bank_of(step.base), self.settings.cache_bytes, None
        if budget:
            contents = digest(latent, self._text.context, self._text.y, self._text.layers)
            key = "layout keys", weights_key(step.base.current_patcher), float(timestep[0]), dtype, block, contents
            found = bank.get(key, step.run, device)
        if found is None:
            inputs = self._text.beside(latent.to(device, dtype))
            batch = one_text(self._text, step.base.diffusion_model, inputs)
            inputs = inputs, timestep, batch.context, batch.y
            found = {block: (run_to(block, bare_forward(step.base), inputs, self._options(step, batch)).k[0],)}
            if budget:
                bank.put(key, found, step.run, budget)
        with torch.inference_mode(False):
            return found[block][0].to(torch.promote_types(dtype, torch.float32)).clone()
