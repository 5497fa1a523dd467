"""Which weights are in force: a key for caches that outlive a sampling run."""

import weakref


def weights_key(patcher):
    """A hashable key that changes whenever the weights that a MODEL runs with change.

    Covers its weight patches, the weight hooks of the conditioning that is run, and modules injected or replaced by
    other packs. The model itself is not in it: keep one cache per model.
    """
    if patcher is None:
        # nobody has loaded the model through a patcher, so nothing patches it
        return ()
    hooks = patcher.current_hooks.hooks if patcher.current_hooks is not None else ()
    injections = [one for several in patcher.injections.values() for one in several]
    replaced = [(name, value) for name, value in patcher.object_patches.items() if name.startswith("diffusion_model")]
    return (
        patcher.patches_uuid,
        tuple((hook.hook_ref, hook.strength) for hook in hooks),
        tuple(_identity(one) for one in injections),
        tuple((name, _identity(value)) for name, value in replaced),
    )


def _identity(value):
    # a weak reference equals another only while its object lives; an id alone could come back with a new object
    try:
        return weakref.ref(value)
    except TypeError:
        return id(value)
