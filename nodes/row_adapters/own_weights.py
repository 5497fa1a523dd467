"""Concepts whose adapters need the weights themselves (DoRA, OFT, ...): their rows run with other weights.

The loaded UNet is never changed, not even for the time of a call: these rows run through a copy of it that shares every
layer but those with other weights. So another thread that samples the same checkpoint sees nothing of it, and an error
in the middle leaves nothing behind.
"""

import copy

import comfy.lora
import comfy.utils

from ..files.lora_names import UNET_PREFIX
from ..host.bare_unet import bare_unet, names_now
from ..host.calls import as_written, live_unet
from ..host.devices import own_of, related
from ..host.fetched_weights import carrying
from ..host.hooked_weights import hook_patches, hooks_key, unpatched
from ..host.messages import input_error
from ..host.packed_weights import is_packed, plain_layer, unpacked
from ..host.unet_inputs import compute_dtype
from ..host.weight_patching import fine
from .concept_deltas import Deltas

# Of a weight so many are kept that differ by the hooks in force: prompts take turns, and keyframes go on.
HOOKED = 3


class OwnWeights:
    """The weights of one such concept. Those of the same checkpoint are computed once a run, for each device anew."""

    def __init__(self, base, deltas):
        """base: the MODEL; deltas: concept_deltas.Deltas with needs_own_forward.

        Raises ValueError for a MODEL whose modules another node has replaced or injected.
        """
        if "replaced or injected modules" in deltas.needs_own_forward:
            raise input_error(
                "a concept's model has modules that another node replaced or injected, which cannot run beside the "
                "base model; load its LoRA with an ordinary LoRA loader"
            )
        self._deltas = deltas
        self._other = None if related(deltas.concept, base) else deltas.own_model(base)
        # whether other concepts have other weights on that checkpoint: then it is loaded without any
        self._apart = False
        self._patches = {key: several for key, several in deltas.patches.items() if key.startswith(UNET_PREFIX)}

    def models(self):
        """A concept of another checkpoint brings its own UNet along."""
        return [] if self._other is None else [self._other]

    def layers(self, base):
        """The layers of the host's BaseModel whose weights these replace."""
        patched = self._patches if self._other is None or self._apart else ()
        with bare_unet(base if self._other is None else self._other.model) as unet:
            return [unet.get_submodule(_module_and_kind(key)[0]) for key in patched]

    def unet(self, base, computed):
        """The UNet with these weights.

        base: the host's BaseModel that runs; computed: {key: {hooks: weight}} is what the run has computed for it so
        far, and is filled.
        """
        running, unet = base.current_patcher, live_unet(base)
        if self._other is not None:
            running = own_of(running, self._other)
            base, unet = running.model, live_unet(running.model)
            if not self._apart:
                return unet
        # quantised models may compute in a dtype that is too coarse for a difference of weights
        return with_weights(unet, self._weights(running, unet, computed, fine(compute_dtype(base))))

    def _weights(self, running, unet, computed, dtype):
        found, names, in_force = {}, names_now(running), hook_patches(running)
        for key in self._patches:
            name, kind = _module_and_kind(key)
            name = names.get(name, name)
            layer = unet.get_submodule(name)
            standing, hooked = getattr(layer, kind), in_force.get(key, ())
            known, hooks = computed.setdefault(key, {}), hooks_key(running) if hooked else ()
            if hooks not in known:
                coarse = is_packed(layer) or standing.dtype.itemsize == 1
                patched = self._patched(running, key, layer, kind, hooked)
                known[hooks] = patched.to(dtype if coarse else standing.dtype)
            found.setdefault(name, {})[kind] = known[hooks].to(standing.device)
            for old in list(known)[:-HOOKED]:
                del known[old]
        return found

    def _patched(self, running, key, layer, kind, hooked):
        standing = getattr(layer, kind)
        clean = unpatched(running, key, standing)
        # what runs may have more patches than the base that came in: nodes behind us belong to all paths, and so do
        # the hooks of the prompt
        shared = running.patches.get(key, ()) if running is not None else ()
        patches = [*shared, *hooked, *self._patches[key]]
        own = unpacked(layer, kind, clean)
        # a copy: the host changes it, and reads of the original only its first value
        values, original = own.to(standing.device, copy=True), {key: [(own,)]} if hooked else None
        return comfy.lora.calculate_weight(patches, values, key, original_weights=original)


def share_checkpoints(several, base):
    """Lets those OwnWeights that are of one and the same other checkpoint share it, which the host loads but once.

    base: the MODEL. Where their weights differ, each has them computed beside those of the checkpoint.
    """
    left = [one for one in several if one._other is not None]
    while left:
        group = [one for one in left if related(one._other, left[0]._other)]
        left = [one for one in left if one not in group]
        apart = len({one._deltas for one in group}) > 1
        handle = Deltas(concept=group[0]._deltas.concept).own_model(base) if apart else group[0]._other
        for one in group:
            one._other, one._apart = handle, apart


def _module_and_kind(key):
    name, _, kind = key.removeprefix(UNET_PREFIX).rpartition(".")
    return name, kind


def with_weights(module, weights):
    """A module like this one but for some weights; all else is shared, and the module itself stays as it is.

    weights: {name of a module inside: {"weight" or "bias": tensor}}.
    """
    module = as_written(module)
    own = weights.get("", {})
    if own and is_packed(module):
        return plain_layer(module, *(own.get(kind, module._parameters.get(kind)) for kind in ("weight", "bias")))
    clone = carrying(module, own) if own else copy.copy(module)
    below = {}
    for name, values in weights.items():
        if name:
            child, _, rest = name.partition(".")
            below.setdefault(child, {})[rest] = values
    children = {child: with_weights(module._modules[child], values) for child, values in below.items()}
    clone.__dict__["_modules"] = {**module._modules, **children}
    return clone
