"""A wrapper of the host's around all others."""

OURS = "personalization"


def put_outermost(model, slot, wrapper):
    """Puts a wrapper on a MODEL outside of all others: in front of the pack's own, which step out of other packs'."""
    wrappers = model.model_options["transformer_options"].setdefault("wrappers", {})
    standing = dict(wrappers.get(slot, {}))
    wrappers[slot] = {OURS: [wrapper, *standing.pop(OURS, [])], **standing}
