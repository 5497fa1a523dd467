"""Concepts whose adapters need the weights themselves (DoRA, OFT, ...): their rows run with other weights."""

from contextlib import contextmanager

import comfy.lora
import comfy.utils
import torch

from .row_adapters import UNET
from .say import refusal


class OwnForward:
    """The weights of one such concept. Those of the same checkpoint are computed once and put in for each pass."""

    def __init__(self, base, deltas):
        """base: the MODEL; deltas: row_adapters.Deltas with needs_own_forward."""
        if "replaced or injected modules" in deltas.needs_own_forward:
            raise refusal(
                "a concept's model holds modules that another node has replaced or injected, which cannot run beside "
                "the base; load its LoRA with an ordinary LoRA loader"
            )
        self._own = deltas.own_model(base)
        self._elsewhere = self._own.model is not base.model
        self._patches = {key: several for key, several in deltas.patches.items() if key.startswith(UNET)}
        self._weights = {}

    def models(self):
        """A concept of another checkpoint brings its own UNet along."""
        return [self._own] if self._elsewhere else []

    @contextmanager
    def active(self):
        """The UNet (x, timesteps, context, y, control, options) -> eps with these weights; the base's stand there again
        afterwards.
        """
        unet = self._own.model.diffusion_model
        if self._elsewhere:
            yield unet._forward
            return
        modules = dict(unet.named_modules())
        standing = []
        try:
            for key in self._patches:
                name, _, kind = key.removeprefix(UNET).rpartition(".")
                module = modules[name]
                weight = self._weight(key, module._parameters[kind])
                functions = f"{kind}_function"
                standing.append((module, kind, module._parameters[kind], functions, getattr(module, functions, None)))
                module._parameters[kind] = torch.nn.Parameter(weight, requires_grad=False)
                if standing[-1][-1]:
                    # the host patches partly loaded weights while they are used; these are patched already
                    setattr(module, functions, [])
            yield unet._forward
        finally:
            for module, kind, weight, functions, patched in standing:
                module._parameters[kind] = weight
                if patched:
                    setattr(module, functions, patched)

    def _weight(self, key, standing):
        if key not in self._weights:
            patcher = self._own.model.current_patcher
            kept = patcher.backup.get(key) if patcher is not None else None
            clean = kept.weight if kept is not None else standing
            # what runs may have more patches than the base that came in: nodes behind us belong to all paths
            shared = patcher.patches.get(key, ()) if patcher is not None else ()
            patches = [*shared, *self._patches[key]]
            patched = comfy.lora.calculate_weight(patches, clean.to(standing.device, torch.float32, copy=True), key)
            self._weights[key] = patched.to(standing.dtype)
        return self._weights[key].to(standing.device)

    def forget(self):
        """Called at the end of a run: the next one may have other weights below."""
        self._weights.clear()
