"""The weights that a MODEL would run with."""

import comfy.lora


def patched_weights(model):
    """{key: the weight with all its patches} of a MODEL, of those that have any."""
    own = model.get_key_patches("diffusion_model.")
    return {
        key: comfy.lora.calculate_weight(patches, own[key][0][0].float().clone(), key)
        for key, patches in model.patches.items()
    }


def same_weights(one, other):
    """Whether two MODELs run with the same weights, but for rounding."""
    mine, theirs = patched_weights(one), patched_weights(other)
    return mine.keys() == theirs.keys() and all((mine[key] - theirs[key]).abs().max() < 1e-5 for key in mine)
