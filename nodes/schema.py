"""What the node schema of older hosts lacks, in one place."""

import inspect

from comfy_api.latest import io

# Widgets that few people need: hosts that know the flag fold them away.
ADVANCED = {"advanced": True} if "advanced" in inspect.signature(io.Float.Input.__init__).parameters else {}

_KNOWN = inspect.signature(io.Schema.__init__).parameters


def Schema(**fields):  # noqa: N802 (reads as the host's io.Schema)
    """io.Schema without the fields that this host does not know (0.3.75 has no search_aliases)."""
    return io.Schema(**{name: value for name, value in fields.items() if name in _KNOWN})
