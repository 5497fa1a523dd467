"""What a concept's MODEL has beyond the base MODEL, in forms that can be computed beside the layers."""

import uuid
from dataclasses import dataclass, field
from functools import cached_property

from ..files.lora_names import UNET_PREFIX
from ..host.bare_unet import bare_unet
from ..host.calls import as_written, plain_name
from ..host.content_keys import patches_digest
from ..host.devices import related
from ..host.messages import input_error, log_warning
from .adapter_parts import NotAdditiveError, part_of, weight_shape
from .weight_patches import patches_beyond

# What halves without axes, of rank 0 or of shapes that do not multiply raise; ComfyUI logs these and goes on.
ODD_LORA = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True, eq=False)
class Deltas:
    """What a concept's MODEL has beyond the base MODEL. Equal ones have equal contents, wherever they were loaded."""

    # {name of a module of the UNet: (part, ...)}, see adapter_parts
    parts: dict = field(default_factory=dict, repr=False)
    # the host's patches behind them, and those that are no parts, {key: [patch, ...]}
    patches: dict = field(default_factory=dict, repr=False)
    # why this concept cannot share a batch with others: kinds of patches that need the weights themselves
    needs_own_forward: tuple = ()
    # the concept's MODEL
    concept: object = field(default=None, repr=False)

    def __bool__(self):
        return bool(self.patches or self.needs_own_forward)

    def __eq__(self, other):
        return isinstance(other, Deltas) and self.digest == other.digest

    def __hash__(self):
        return hash(self.digest)

    @cached_property
    def digest(self):
        """A hash of the contents."""
        others = ()
        if self.needs_own_forward:
            others = id(getattr(self.concept, "model", None)), frozenset(id(one) for one in _replaced(self.concept))
        return patches_digest(self.patches), self.needs_own_forward, others

    def own_model(self, base):
        """A MODEL whose weights are the base's with these deltas patched in, for a forward of its own.

        Patches that the base alone has belong to all paths, so they are in it.
        """
        model = (self.concept or base).clone()
        model.patches = {key: list(patches) for key, patches in base.patches.items()}
        for key, patches in self.patches.items():
            model.patches[key] = [*model.patches.get(key, ()), *patches]
        model.patches_uuid = uuid.uuid4()
        # it runs beside the base, on the base's devices: its own copies would be taken for the base's
        model.remove_additional_models("multigpu")
        return model


def concept_deltas(base, concept, strength=1.0):
    """The Deltas of the MODEL `concept` beyond the MODEL `base`, times strength.

    Patches are compared by content. What both have belongs to all paths, and so does what the base alone has; of a LoRA
    that both have at different strengths the difference is left. Raises ValueError for a concept of another family.
    """
    ours, theirs = (layers_of_model(model) for model in (base, concept))
    if not related(concept, base) and _shapes(ours) != _shapes(theirs):
        raise input_error(
            f"the concept's model is a different one ({type(concept.model).__name__}, the base is "
            f"{type(base.model).__name__}): load the concept's LoRA on the same checkpoint as the base"
        )
    patches = {
        key: [(patch[0] * strength, *patch[1:]) for patch in extra if patch[0] * strength or patch[2] != 1.0]
        for key, extra in patches_beyond(*map(_patches_of, (base, concept))).items()
        if key.startswith(UNET_PREFIX)
    }
    patches = {key: extra for key, extra in patches.items() if extra}
    parts, reasons = _parts_of(patches, ours)
    if not related(concept, base):
        reasons.add("another checkpoint")
    if _replaced(concept) - _replaced(base):
        reasons.add("replaced or injected modules")
    if reasons:
        log_warning(
            f"a concept uses {', '.join(sorted(reasons))}, which cannot run in the shared batch: it runs in a forward "
            "pass of its own, which takes longer"
        )
    return Deltas(parts, patches, tuple(sorted(reasons)), concept)


def loaded_nothing(base, concept):
    """Whether a LoRA loader stands between the MODEL `base` and the MODEL `concept` of which nothing arrived.

    The host's loaders renew the identity of a MODEL's patches even where no key of the file fits. Where the base has
    patches of its own that says nothing, so the answer is no.
    """
    bare = not base.patches and not concept.patches and related(concept, base)
    return bare and concept.patches_uuid != base.patches_uuid


def _patches_of(model):
    # a LoRA that was loaded behind a compiled run has the names of that run
    return {plain_name(key): patches for key, patches in model.patches.items()}


def _parts_of(patches, layers):
    parts, reasons = {}, set()
    for key, extra in patches.items():
        name, _, kind = key.removeprefix(UNET_PREFIX).rpartition(".")
        for patch in extra:
            try:
                if kind not in ("weight", "bias") or name not in layers:
                    raise NotAdditiveError(f"a patch of {key}")
                part = part_of(patch, layers[name], kind == "bias")
            except NotAdditiveError as reason:
                reasons.add(str(reason))
                continue
            except ODD_LORA:
                part = None
            if part is None:
                log_warning(f"a patch does not fit {key} and is skipped, as in ComfyUI itself")
            else:
                parts.setdefault(name, []).append(part)
    return {name: tuple(found) for name, found in parts.items()}, reasons


def layers_of_model(model):
    """{name: module} of the UNet of a MODEL."""
    with bare_unet(model.model) as unet:
        return {plain_name(name): as_written(module) for name, module in unet.named_modules()}


def _shapes(layers):
    return {name: weight_shape(layer) for name, layer in layers.items()}


def _replaced(model):
    """What stands in the UNet of a MODEL beside its patches."""
    if model is None:
        return set()
    objects = {(key, value) for key, value in model.object_patches.items() if key.startswith(UNET_PREFIX)}
    wrapped = {(key, one) for key, several in model.weight_wrapper_patches.items() for one in several}
    return objects | wrapped | {one for several in model.injections.values() for one in several}
