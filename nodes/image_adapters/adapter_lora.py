"""The LoRA half of an image adapter's file: changes of the UNet's own matrices, added by the host's own means."""

import comfy.lora
import torch

from ..host.bare_unet import on_bare_unet
from ..host.blocks import cross_attention
from ..host.calls import live_unet, plain_name
from ..host.messages import input_error, warn_user
from ..host.weight_patching import with_weight_patches
from .adapter_fit import cross_attentions

PARTS_OF_ATTENTION = {"to_q": "to_q", "to_k": "to_k", "to_v": "to_v", "to_out": "to_out.0"}


@on_bare_unet
def with_lora(model, adapter, strength):
    """A clone of the MODEL whose attentions have the adapter's LoRA; the MODEL itself where nothing would change.

    Where the MODEL carries the very same LoRA already (people load its separate file too), it is left out and said.
    Raises ValueError if the LoRA fits only a part of the model, or the model takes no patches.
    """
    if not adapter.lora or strength == 0:
        return model
    named = _kohya_names(adapter.lora, live_unet(model.model))
    patches = comfy.lora.load_lora(named, comfy.lora.model_lora_keys_unet(model.model, {}), log_missing=False)
    if len(patches) * 2 != len(named):
        raise input_error(
            f"the LoRA of {adapter.name} fits {len(patches)} of {len(named) // 2} matrices of this model; use a "
            f"checkpoint of {adapter.family}"
        )
    if all(_stands(one, model.patches.get(key, ())) for key, one in patches.items()):
        warn_user(
            f"{adapter.name}: the model already has the LoRA of this file, from Load LoRA or from a node before this "
            "one, so it is not added again"
        )
        return model
    return with_weight_patches(model, patches, strength)


def _kohya_names(lora, unet):
    """The LoRA's tensors by the names of the host's modules in LoRA files. Even numbers are self-attentions."""
    names = {id(module): plain_name(name) for name, module in unet.named_modules()}
    found = {}
    for number, block in enumerate(cross_attentions(unet)):
        cross = names[id(cross_attention(unet, block))]
        for own, module in ((2 * number, cross.removesuffix("2") + "1"), (2 * number + 1, cross)):
            for part, inside in PARTS_OF_ATTENTION.items():
                name = f"lora_unet_{module}_{inside}".replace(".", "_")
                for side in ("up", "down"):
                    found[f"{name}.lora_{side}.weight"] = lora[f"{own}.{part}_lora.{side}.weight"]
    return found


def _stands(patch, standing):
    """Whether one of the host's patches of a weight is this one, whatever its strength."""
    return any(_same(patch, entry[1]) for entry in standing)


def _same(one, other):
    mine, theirs = (_matrices(patch) for patch in (one, other))
    return (
        mine is not None
        and theirs is not None
        and all(
            a.shape == b.shape and torch.equal(a.float().cpu(), b.float().cpu())
            for a, b in zip(mine, theirs, strict=True)
        )
    )


def _matrices(patch):
    """(up, down) of a LoRA patch, None for a patch of another kind."""
    weights = getattr(patch, "weights", ())
    up_and_down = weights[:2] if isinstance(weights, tuple | list) else ()
    return up_and_down if len(up_and_down) == 2 and all(isinstance(t, torch.Tensor) for t in up_and_down) else None
