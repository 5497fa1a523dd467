"""Concepts whose adapters need the weights themselves (DoRA, OFT, ...): their rows run with other weights.

The loaded UNet is never changed, not even for the time of a call: these rows run through a copy of it that shares every
layer but those with other weights. So another thread that samples the same checkpoint sees nothing of it, and an error
in the middle leaves nothing behind.
"""

import copy

import comfy.lora
import comfy.utils
import torch

from ..files.lora_names import UNET_PREFIX
from ..host.calls import forward_of
from ..host.messages import input_error


class OwnWeights:
    """The weights of one such concept. Those of the same checkpoint are computed once a run."""

    def __init__(self, base, deltas):
        """base: the MODEL; deltas: concept_deltas.Deltas with needs_own_forward.

        Raises ValueError for a MODEL whose modules another node has replaced or injected.
        """
        if "replaced or injected modules" in deltas.needs_own_forward:
            raise input_error(
                "a concept's model has modules that another node replaced or injected, which cannot run beside the "
                "base model; load its LoRA with an ordinary LoRA loader"
            )
        self._own = deltas.own_model(base)
        self._elsewhere = self._own.model is not base.model
        self._patches = {key: several for key, several in deltas.patches.items() if key.startswith(UNET_PREFIX)}

    def models(self):
        """A concept of another checkpoint brings its own UNet along."""
        return [self._own] if self._elsewhere else []

    def forward(self, computed):
        """The UNet (x, timesteps, context, y, control, options) -> eps with these weights.

        computed: {key: weight} is what the run has computed so far, and is filled.
        """
        unet = self._own.model.diffusion_model
        return forward_of(unet if self._elsewhere else with_weights(unet, self._weights(unet, computed)))

    def _weights(self, unet, computed):
        found = {}
        for key in self._patches:
            name, _, kind = key.removeprefix(UNET_PREFIX).rpartition(".")
            standing = getattr(unet.get_submodule(name), kind)
            if key not in computed:
                computed[key] = self._patched(key, standing)
            found.setdefault(name, {})[kind] = computed[key].to(standing.device)
        return found

    def _patched(self, key, standing):
        patcher = self._own.model.current_patcher
        kept = patcher.backup.get(key) if patcher is not None else None
        clean = kept.weight if kept is not None else standing
        # what runs may have more patches than the base that came in: nodes behind us belong to all paths
        shared = patcher.patches.get(key, ()) if patcher is not None else ()
        patches = [*shared, *self._patches[key]]
        patched = comfy.lora.calculate_weight(patches, clean.to(standing.device, torch.float32, copy=True), key)
        return patched.to(standing.dtype)


def with_weights(module, weights):
    """A module like this one but for some weights; all else is shared, and the module itself stays as it is.

    weights: {name of a module inside: {"weight" or "bias": tensor}}.
    """
    clone = copy.copy(module)
    own = weights.get("", {})
    clone.__dict__["_parameters"] = {
        **module._parameters,
        **{kind: torch.nn.Parameter(tensor, requires_grad=False) for kind, tensor in own.items()},
    }
    for kind in own:
        # the host patches partly loaded weights while they are used; these are patched already
        if getattr(module, f"{kind}_function", None):
            setattr(clone, f"{kind}_function", [])
    below = {}
    for name, values in weights.items():
        if name:
            child, _, rest = name.partition(".")
            below.setdefault(child, {})[rest] = values
    children = {child: with_weights(module._modules[child], values) for child, values in below.items()}
    clone.__dict__["_modules"] = {**module._modules, **children}
    return clone
