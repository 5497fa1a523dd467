"""LoRAs that hang on a prompt (the host's hooks): other weights while the rows of that prompt run."""

import torch

from .calls import clean_options


def hook_as(step, entry):
    """Puts those weights in force that a prompt of the guider's brings along at a Step, as the host does for its rows.

    Between two steps the weights of whichever prompt ran last are in force.
    """
    patcher, hooks = step.base.current_patcher, entry.get("hooks")
    if patcher is None:
        # nobody has loaded the model through a patcher, so nothing hangs on its weights
        return
    if hooks is not None:
        options = {"transformer_options": clean_options(step.moment.sigma, schedule=step.run.schedule({}))}
        sigma = torch.tensor([step.moment.sigma], device=step.x.device)
        patcher.prepare_hook_patches_current_keyframe(sigma, hooks, {**step.run.guider.model_options, **options})
    patcher.apply_hooks(hooks)


def hooks_key(patcher):
    """A hashable key of the hooks that are in force on a MODEL."""
    hooks = patcher.current_hooks.hooks if patcher.current_hooks is not None else ()
    return tuple((hook.hook_ref, hook.strength) for hook in hooks)


def hook_patches(patcher):
    """{key: the host's patches that the hooks in force put on a weight, behind the MODEL's own}."""
    if patcher is None or patcher.current_hooks is None:
        return {}
    return patcher.get_combined_hook_patches(patcher.current_hooks)


def unpatched(patcher, key, weight):
    """The weight of a MODEL under a key without its patches and the hooks in force; weight: as it is with them."""
    # of hooks the host keeps what they found: a weight with patches, where these are written into it
    kept = patcher.backup.get(key) if patcher is not None else None
    return kept.weight if kept is not None else unhooked(patcher, key, weight)


def unhooked(patcher, key, weight):
    """The weight of a MODEL under a key as it is without the hooks in force; weight: as it is with them."""
    return patcher.hook_backup[key][0] if patcher is not None and key in patcher.hook_backup else weight
