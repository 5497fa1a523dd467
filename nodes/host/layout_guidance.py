"""Layout guidance of one run: how the latent moves so that the picture takes the layout of another."""

import math

import comfy.model_management as mm
import comfy.utils
import torch
from comfy.ldm.modules import attention as host_attention

from ...kernels.layout_guidance import layout_loss
from .bank import bank_of, digest
from .concept_passes import run_to
from .concept_rows import Block, batch_of, block_of, tokens_together
from .normal_tensors import differentiable
from .say import refusal
from .unet_inputs import compute_dtype, processed, unet_inputs
from .weights import weights_key
from .when import ROUNDING

# Bytes of activations that a gradient keeps per latent pixel and row, at two bytes per value: computed for the true
# UNets (0.30 GB for 64 x 64, 3.22 GB for 128 x 128), by number of output blocks.
ACTIVATIONS = {12: 0.30e9 / 64**2, 9: 3.22e9 / 128**2}
# Where the largest gradient of a key is scaled to in half precision; smaller ones would vanish on the way back.
PEAK = 0.125


class LayoutGuidance:
    """The gradient steps of one run; `layout_latent(step, timestep)` is the layout picture at a step."""

    def __init__(self, conducting, settings, layout_latent, layout_text):
        self.conducting, self.settings = conducting, settings
        self.layout_latent, self.layout_text = layout_latent, layout_text
        self._text = None
        self._done = set()

    def shift(self, step):
        """What to add to the sampler's latent, or None in steps without guidance."""
        if not self._due(step):
            return None
        mm.throw_exception_if_processing_interrupted()
        self._done.add(step.moment.step)
        gradient = self._gradient(step)
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
        blocks = {path: self._block(path, image, step.x, device, dtype) for path in weights}
        groups = [[path] for path in weights if path in self.conducting.own]
        together = [path for path in weights if path not in self.conducting.own]
        if self._fits(step, blocks, together):
            try:
                return self._summed(step, image, blocks, weights, [together, *groups], reference)
            except mm.OOM_EXCEPTION:
                mm.soft_empty_cache()
        return self._summed(step, image, blocks, weights, [*([path] for path in together), *groups], reference)

    def _summed(self, step, image, blocks, weights, groups, reference):
        # the loss is a sum over paths, so its gradient is one too
        return sum(
            self._gradient_of(step, image, [blocks[path] for path in group], weights, group, reference)
            for group in groups
        )

    def _gradient_of(self, step, image, blocks, weights, paths, reference):
        mm.throw_exception_if_processing_interrupted()
        conducting, sampling = self.conducting, step.base.model_sampling
        x, rows, many = step.x, len(step.x), len(paths)
        dtype = compute_dtype(step.base)
        sigma = torch.full((rows,), step.moment.sigma, device=x.device)
        z = sampling.calculate_input(sigma, x)
        timesteps = sampling.timestep(sigma).float().repeat(many)
        concat = None
        if image.concat is not None:
            concat = comfy.utils.repeat_to_batch_size(image.concat, rows).to(x.device, dtype)
        foreground = self._foreground(step)
        with conducting.weights(paths, rows, step.base) as unet, differentiable():
            leaf = z.float().clone().requires_grad_(True)
            inputs = leaf.to(dtype) if concat is None else torch.cat([leaf.to(dtype), concat], 1)
            batch = batch_of(blocks, conducting.layers)
            _, keys, _, _ = run_to(
                conducting.layers.guidance,
                unet,
                (inputs.repeat(many, 1, 1, 1), timesteps, batch.context, batch.y),
                self._options(step, batch),
            )
            found = keys.detach().to(torch.promote_types(dtype, torch.float32))
            found = found.unflatten(0, (many, rows)).requires_grad_(True)
            factors = torch.tensor([weights[path] for path in paths], device=x.device)
            loss = layout_loss(found, reference, factors, foreground)
            (of_keys,) = torch.autograd.grad(loss, found)
            return _back(keys, of_keys.flatten(0, 1), leaf)

    def _options(self, step, batch=None):
        """Clean options: no patches of anyone, and an attention that can be differentiated."""
        order = self.conducting.layers.order
        options = {
            "sigmas": torch.full((1,), step.moment.sigma, device=step.x.device),
            "cond_or_uncond": [0],
            "optimized_attention_override": _differentiable_attention,
        }
        if batch is not None and batch.layered:
            options["patches"] = {"attn2_patch": [batch.reader(order)]}
        return options

    def _foreground(self, step):
        """How many masks cover each token: (images or 1, n), or None where all tokens count once."""
        if not self.settings.use_loss_mask:
            return None
        self.conducting.masks.enter(step.moment.step)
        grid = self.conducting.grid_of(self.conducting.layers.guidance)
        return self.conducting.masks.at(grid, step.x.device).sum(0).float()

    def _image_inputs(self, step):
        """The Inputs of the first positive prompt that acts at this noise level."""
        for entry in step.run.conds().get("positive") or ():
            start, end = (entry.get(name) for name in ("timestep_start", "timestep_end"))
            sigma = step.moment.sigma
            if (start is None or sigma <= start) and (end is None or sigma >= end):
                return processed(entry)
        return None

    def _block(self, path, image, x, device, dtype):
        like = torch.empty(0, device=device, dtype=dtype)
        inputs = self.conducting.texts.of(path, "cond") if path is not None else None
        if inputs is not None:
            return block_of(inputs, len(x), like)
        context = comfy.utils.repeat_to_batch_size(image.context, len(x)).to(like)
        y = comfy.utils.repeat_to_batch_size(image.y, len(x)).to(like) if image.y is not None else None
        return Block(context, y, image.layers.to(like) if image.layers is not None else None)

    def _fits(self, step, blocks, paths):
        if not tokens_together([blocks[path].context.shape[1] for path in paths]):
            return False
        rows, area = len(paths) * len(step.x), math.prod(step.x.shape[2:])
        size = torch.empty(0, dtype=compute_dtype(step.base)).element_size()
        activations = ACTIVATIONS[len(step.base.diffusion_model.output_blocks)] * rows * area * size / 2
        forward = step.base.memory_required([rows, *step.x.shape[1:]]) * 1.5
        return activations + forward < mm.get_free_memory(step.x.device)

    def _reference_keys(self, step, dtype):
        """The layout picture's keys (n, c) float32 at this noise level: from an earlier run where there was one."""
        sampling, device = step.base.model_sampling, step.x.device
        sigma = torch.full((1,), step.moment.sigma, device=device)
        timestep = sampling.timestep(sigma).float()
        latent = self.layout_latent(step.moment.step, int(timestep[0]))
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
            inputs = latent.to(device, dtype)
            if self._text.concat is not None:
                inputs = torch.cat([inputs, self._text.concat.to(inputs)], 1)
            batch = batch_of([block_of(self._text, 1, inputs)], self.conducting.layers)
            unet = step.base.diffusion_model._forward
            texts = inputs, timestep, batch.context, batch.y
            _, keys, _, _ = run_to(block, unet, texts, self._options(step, batch))
            found = {block: (keys[0],)}
            if budget:
                bank.put(key, found, step.run, budget)
        with torch.inference_mode(False):
            return found[block][0].to(torch.promote_types(dtype, torch.float32)).clone()


def _back(keys, of_keys, leaf):
    """The gradient with respect to the leaf, from that of the keys; scaled on the way if small values would vanish."""
    half = keys.element_size() < 4
    peak = float(of_keys.abs().max())
    if peak == 0:
        return torch.zeros_like(leaf)
    scale = 2.0 ** math.floor(math.log2(PEAK / peak)) if half else 1.0
    for _ in range(3):
        scaled = (of_keys * scale).to(keys.dtype)
        (gradient,) = torch.autograd.grad(keys, leaf, scaled, retain_graph=half)
        if torch.isfinite(gradient).all():
            return gradient / scale
        scale /= 256
    raise refusal(
        "layout guidance gave values that are not numbers in half precision; start the host with --fp32-unet or set "
        "guidance_weight to 0"
    )


def _differentiable_attention(function, q, k, v, heads, *args, **kwargs):
    # quantized and hand-written backends have no backward pass
    return host_attention.attention_pytorch(q, k, v, heads, *args, **kwargs)
