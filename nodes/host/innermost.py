"""Wrappers of ours that run inside those of all other packs, or outside, whatever the order of nodes."""

from comfy.patcher_extension import WrapperExecutor


class Innermost:
    """A wrapper of the host's that steps behind the wrappers of others, around what the host itself does.

    So it sees what they make of the inputs, and once for each time that they call on.
    """

    # by name and not by class: another copy of this pack has a class of its own
    personalization_innermost = True

    def __init__(self, wrapper):
        """wrapper: a method of an object that clones of a MODEL may share, or such an object."""
        self.wrapper = wrapper

    def __call__(self, executor, *args, **kwargs):
        rest = executor.wrappers[executor.idx + 1 :]
        if all(getattr(one, "personalization_innermost", False) for one in rest):
            return self.wrapper(executor, *args, **kwargs)
        behind = WrapperExecutor.new_class_executor(executor.original, executor.class_obj, [*rest, self])
        return behind.execute(*args, **kwargs)

    def __deepcopy__(self, memo):
        # a pack that copies the options of a MODEL does not copy the model in them
        return self


def put_outermost(options, kind, key):
    """Puts the wrappers of a kind under a key before those of others, in options that belong to one run alone."""
    standing = options["wrappers"].get(kind, {})
    if key in standing:
        options["wrappers"][kind] = {key: standing[key], **standing}
