"""Layout guidance of one run: how the latent moves so that the picture takes the layout of another."""

from functools import partial

import comfy.model_management as mm
import torch

from ...kernels.layout_guidance import layout_loss
from ..host.bank import bank_of
from ..host.calls import channels_of, clean_options, forward_of, live_unet, rows_together
from ..host.content_keys import digest, weights_key
from ..host.gradients import differentiable
from ..host.hooked_weights import hook_as
from ..host.packed_weights import unpacking
from ..host.partial_pass import run_to
from ..host.rows import POSITIVE, acting_prompt
from ..host.text_rows import one_text, text_batch, text_rows, tokens_together
from ..host.unet_inputs import compute_dtype, input_root, processed, unet_inputs
from ..host.when import unet_timestep, whole_timestep
from ..latent_guidance.latent_gradient import Guided, differentiable_options, gradient_fits, gradient_of
from ..latent_guidance.step_bound import held_to_step
from .guided_steps import GuidedSteps

_GUIDED = Guided("layout guidance", "guidance_weight")


class LayoutGuidance:
    """The gradient steps of one run."""

    def __init__(self, conducting, settings, layout_text):
        """conducting: what lives for the run; layout_text: (context, values) of what the layout picture shows."""
        self.conducting, self.settings, self.layout_text = conducting, settings, layout_text
        self._text = None
        self.steps = GuidedSteps(settings)

    def shift(self, step):
        """What to add to the sampler's latent (before `held`), or None in steps without guidance."""
        if not self.steps.due(step):
            return None
        if tuple(step.x.shape[-2:]) != step.run.latent_size:
            step.run.tell(
                "layout guidance stops where this sampler changes the size of the latent; enlarge the picture in a "
                "second pass to keep it"
            )
            return None
        mm.throw_exception_if_processing_interrupted()
        gradient = self._gradient(step)
        # The gradient is taken with respect to z = x / root, the latent as the UNet takes it. "vp" moves z by -w g, so
        # x by root times that; "sigma" moves x along its own gradient, which is g / root.
        root = input_root(step.base.model_sampling, step.moment.sigma)
        scale = root if self.settings.gradient_space == "vp" else 1 / root
        return (gradient * (-self.settings.guidance_weight * scale)).to(step.x)

    def held(self, shift, step):
        """A shift no larger than the sampler's own step from there; where that acts it is said."""
        shift, held = held_to_step(shift, step.moment.sigma, step.next_sigma)
        if held.any():
            step.run.tell(
                f"layout guidance of weight {self.settings.guidance_weight:g} would move the latent further than the "
                "sampler's own steps do, so it is held to their size; a larger guidance_weight changes "
                "little, lower it if the layout picture's texture shows"
            )
        return shift

    def _gradient(self, step):
        """Of the layout loss with respect to the latent as the UNet takes it (B, 4, h, w), in float32."""
        base = step.base
        device, dtype = step.x.device, compute_dtype(base)
        entry = acting_prompt(step.run.conds(), step.moment.sigma)
        if entry is None:
            return torch.zeros_like(step.x)
        hook_as(step, entry)
        image, reference = processed(entry), self._reference_keys(step, dtype)
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
        more = image.behind(z.to(dtype), channels_of(step.base))
        weights_at_hand = partial(unpacking, device=x.device)
        with conducting.weights(texts, rows, step.base, weights_at_hand) as unet, differentiable():
            leaf = z.float().clone().requires_grad_(True)
            inputs = torch.cat([leaf.to(dtype), more], 1)
            batch = text_batch(list(texts.values()), conducting.layers.levels)
            inputs = inputs.repeat(many, 1, 1, 1), timesteps, batch.context, batch.y
            options = self._options(step, batch, many)
            seen = run_to(conducting.layers.guidance, unet, inputs, options)
            foreground = self._foreground(seen.grid, x.device)
            factors = torch.tensor([weights[path] for path in texts], device=x.device)

            def loss_of(keys):
                return layout_loss(keys.unflatten(0, (many, rows)), reference, factors, foreground)

            return gradient_of(loss_of, seen.k, leaf, _GUIDED)

    def _options(self, step, batch, texts):
        rows = len(batch.context) // texts
        clean = clean_options(step.moment.sigma, step.x.device, texts, rows, step.run.schedule({}))
        return batch.read_by(differentiable_options(clean), whole_timestep(step.moment.sigma, step.base.model_sampling))

    def _foreground(self, grid, device):
        """How many of the user's masks cover each token of a grid: (1, n), or None where all tokens count once."""
        if not self.settings.use_loss_mask:
            return None
        return self.conducting.masks.first_at(grid, device).sum(0).float()

    def _text_rows(self, path, image, x, device, dtype):
        like = torch.empty(0, device=device, dtype=dtype)
        if path is None:
            return text_rows(image, len(x), like)
        return self.conducting.texts.rows(path, POSITIVE, len(x), like)

    def _fits(self, step, texts, paths):
        lengths = [texts[path].context.shape[1] for path in paths]
        return bool(tokens_together(lengths)) and gradient_fits(step.base, len(paths) * len(step.x), step.x)

    def _reference_keys(self, step, dtype):
        """The layout picture's keys (n, c) float32 at this noise level: from an earlier run where there was one."""
        sampling, device = step.base.model_sampling, step.x.device
        sigma = torch.full((1,), step.moment.sigma, device=device)
        timestep = sampling.timestep(sigma).float()
        number = unet_timestep(step.moment.sigma, sampling)
        # models that are trained by logarithms of noise have no whole numbers
        named = int(number) if number.is_integer() else number
        latent = self.conducting.layout_latent(step.moment.step, named)
        if self._text is None:
            tensor, values = self.layout_text
            self._text = unet_inputs(step.base, tensor, values, latent.float().cpu())
        block = self.conducting.layers.guidance
        rows = rows_together(step.base.current_patcher, len(step.x))
        bank, budget, found = bank_of(step.base), self.settings.cache_bytes, None
        if budget:
            contents = digest(latent, self._text.context, self._text.y, self._text.contexts, self._text.values)
            weights = weights_key(step.base.current_patcher), rows
            key = "layout keys", *weights, number, dtype, block, contents
            found = bank.get(key, step.run, device)
        if found is None:
            inputs = self._text.beside(latent.to(device, dtype), channels_of(step.base))
            batch = one_text(self._text, live_unet(step.base), inputs, rows)
            inputs = inputs.expand(rows, -1, -1, -1), timestep.expand(rows), batch.context, batch.y
            options = self._options(step, batch, 1)
            found = {block: (run_to(block, forward_of(unpacking(live_unet(step.base))), inputs, options).k[0],)}
            if budget:
                bank.put(key, found, step.run, budget)
        with torch.inference_mode(False):
            return found[block][0].to(torch.promote_types(dtype, torch.float32)).clone()
