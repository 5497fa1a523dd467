"""Concepts whose adapters need the weights themselves (DoRA, OFT, ...): their rows run with other weights."""

from contextlib import contextmanager

import comfy.lora
import comfy.utils
import torch

from ..files.lora_names import UNET_PREFIX
from ..host.calls import bare_forward
from ..host.messages import input_error


class OwnWeights:
    """The weights of one such concept. Those of the same checkpoint are computed once a run and put in at each pass."""

    def __init__(self, base, deltas):
        """base: the MODEL; deltas: row_adapters.Deltas with needs_own_forward."""
        if "replaced or injected modules" in deltas.needs_own_forward:
            raise input_error(
                "a concept's model holds modules that another node has replaced or injected, which cannot run beside "
                "the base; load its LoRA with an ordinary LoRA loader"
            )
        self._own = deltas.own_model(base)
        self._elsewhere = self._own.model is not base.model
        self._patches = {key: several for key, several in deltas.patches.items() if key.startswith(UNET_PREFIX)}

    def models(self):
        """A concept of another checkpoint brings its own UNet along."""
        return [self._own] if self._elsewhere else []

    @contextmanager
    def active(self, computed):
        """The UNet (x, timesteps, context, y, control, options) -> eps with these weights; the base's stand there again
        afterwards. computed: {key: weight} is what the run has computed so far, and is filled.
        """
        unet = self._own.model.diffusion_model
        if self._elsewhere:
            yield bare_forward(self._own.model)
            return
        modules = dict(unet.named_modules())
        standing = []
        try:
            for key in self._patches:
                name, _, kind = key.removeprefix(UNET_PREFIX).rpartition(".")
                module = modules[name]
                standing_weight = module._parameters[kind]
                if key not in computed:
                    computed[key] = self._patched(key, standing_weight)
                weight = computed[key].to(standing_weight.device)
                functions = f"{kind}_function"
                standing.append((module, kind, standing_weight, functions, getattr(module, functions, None)))
                module._parameters[kind] = torch.nn.Parameter(weight, requires_grad=False)
                if standing[-1][-1]:
                    # the host patches partly loaded weights while they are used; these are patched already
                    setattr(module, functions, [])
            yield bare_forward(self._own.model)
        finally:
            for module, kind, weight, functions, patched in standing:
                module._parameters[kind] = weight
                if patched:
                    setattr(module, functions, patched)

    def _patched(self, key, standing):
        patcher = self._own.model.current_patcher
        kept = patcher.backup.get(key) if patcher is not None else None
        clean = kept.weight if kept is not None else standing
        # what runs may have more patches than the base that came in: nodes behind us belong to all paths
        shared = patcher.patches.get(key, ()) if patcher is not None else ()
        patches = [*shared, *self._patches[key]]
        patched = comfy.lora.calculate_weight(patches, clean.to(standing.device, torch.float32, copy=True), key)
        return patched.to(standing.dtype)
