"""Models with copies on several devices: which of the host's handles on them (ModelPatchers) belong together."""


def related(one, two):
    """Whether two handles are of one loaded model, or of its copies on several devices."""
    origin = getattr(one, "clone_base_uuid", None)
    return one.model is two.model or (origin is not None and origin == getattr(two, "clone_base_uuid", None))


def own_of(running, wanted):
    """The wanted handle, or its copy, among the additional models of the handle that runs; else the wanted one."""
    additional = running.get_additional_models() if running is not None else ()
    return next((one for one in additional if related(one, wanted)), wanted)


def beside(model, wanted):
    """As `own_of`, and on the device of the MODEL: a copy where it is on another one and can be loaded again.

    A text encoder stays where the user wants text to be encoded.
    """
    found = own_of(model, wanted)
    if getattr(found, "is_clip", False):
        return found
    if found.load_device != model.load_device and getattr(found, "cached_patcher_init", None) is not None:
        found = found.deepclone_multigpu(new_load_device=model.load_device)
        # Select Model Device keeps all on the CPU there
        found.offload_device = model.offload_device
    return found


def with_factory(patcher, make, *args):
    """The handle, with make(*args), which loads another one: how the host copies a model to another device.

    Older hosts know nothing of it.
    """
    patcher.cached_patcher_init = make, args
    return patcher
