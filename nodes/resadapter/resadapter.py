"""ResAdapter: joins a MODEL as patches of its weights, and nothing happens at sampling time."""

import comfy.lora

from ..files.lora_names import PART_NAMES
from ..host.bare_unet import on_bare_unet
from ..host.choices import check_listed
from ..host.families import family_of
from ..host.messages import plain, warn_user
from ..host.weight_patching import with_weight_patches
from .adapter_sets import read_set
from .set_fit import fitted

NORMS = ("auto", "on", "off")


@on_bare_unet
def attach_resadapter(model, choice, *, alpha, norms, norm_strength, link_norms):
    """(the MODEL with a set of the model folder in its weights, the report of what was done).

    Convolutions get W + alpha * scale * up @ down, norms (1 - s) * W + s * the file's. The MODEL that came in stays as
    it was. Raises ValueError, before anything is patched, for a set that does not fit in whole.
    """
    check_listed("norms", norms, NORMS)
    adapter = read_set(choice)
    lora, file_norms = fitted(adapter, model)
    if link_norms:
        norm_strength = min(max(alpha, 0.0), 1.0)
    if norms == "off" or (norms == "auto" and adapter.interpolates):
        norm_strength = 0.0

    lines = [_title(adapter, model), _lora_line(lora, alpha, model), _norm_line(adapter, norms, norm_strength)]
    warnings = [*adapter.notes, *_missing_halves(adapter), *_collisions(model, file_norms if norm_strength else {})]
    patched = model
    if alpha and lora:
        patched = with_weight_patches(patched, _lora_patches(lora), alpha)
    if norm_strength and file_norms:
        # the host scales what is there, then adds: a blend that reads no weight, so that any storage of them will do
        values = {key: (tensor,) for key, tensor in file_norms.items()}
        patched = with_weight_patches(patched, values, norm_strength, strength_model=1.0 - norm_strength)

    if warnings:
        warn_user(f"ResAdapter {choice}: {'; '.join(warnings)}")
    return patched, "\n".join(map(plain, [*filter(None, lines), *(f"note: {warning}" for warning in warnings)]))


def _lora_patches(lora):
    """The host's LoRA patches {key: patch} of {key: {"down", "up", "alpha"}}."""
    weights = {f"{key}.{PART_NAMES[part]}": tensor for key, parts in lora.items() for part, tensor in parts.items()}
    return comfy.lora.load_lora(weights, {key: key for key in lora})


def _collisions(model, norms):
    """Sentences on patches of earlier nodes on the norms that we replace."""
    replaced = [key for key in norms if any(_replaces(patch) for patch in model.patches.get(key, ()))]
    added_to = [key for key in norms if key in model.patches and key not in replaced]
    if replaced:
        yield (
            f"{len(replaced)} norms of this model were already replaced, by a model merge or another ResAdapter: the "
            "LoRAs add up, the norms of this node win. After a merge that is right, since before it the set would act "
            "only with its checkpoint's share; of two ResAdapters, remove one"
        )
    if added_to:
        yield f"an earlier LoRA changes {len(added_to)} of these norms and is overridden there: put ResAdapter first"


def _replaces(patch):
    strength_model, value = patch[2], patch[1]
    return strength_model != 1.0 or (isinstance(value, tuple) and value[:1] == ("set",))


def _missing_halves(adapter):
    if not adapter.norms:
        yield "its norms are missing: it works up to the native size only"
    if not adapter.convs:
        yield "its LoRA is missing: the norms alone are not enough"


def _title(adapter, model):
    told = f" (published set {adapter.published})" if adapter.published not in (None, adapter.name) else ""
    told = " (published set)" if adapter.published == adapter.name else told
    return f"{adapter.name}{told} on {family_of(model)}"


def _lora_line(lora, alpha, model):
    if not lora:
        return ""
    parts = next(iter(lora.values()))
    rank = parts["down"].shape[0]
    scale = float(parts["alpha"]) / rank if "alpha" in parts else 1.0
    shared = sum(key in model.patches for key in lora)
    added = f"; {shared} of them already have a LoRA, the two add up" if shared and alpha else ""
    return f"LoRA: {len(lora)} convolutions, rank {rank}, the file's scale {scale:g}, alpha {alpha:g}{added}"


def _norm_line(adapter, norms, strength):
    if not adapter.norms:
        return ""
    if strength:
        return f"norms: {adapter.norm_count} tensors, strength {strength:g}"
    why = " (auto: not needed by a set for small sizes)" if norms == "auto" and adapter.interpolates else ""
    return f"norms: off{why}"
