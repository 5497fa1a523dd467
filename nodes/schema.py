"""What the node schema of older hosts lacks, and what no host asks of a value that comes over a wire."""

import inspect

from comfy_api.latest import io

from .host.messages import input_error

# Widgets that few people need: hosts that know the flag fold them away.
ADVANCED = {"advanced": True} if "advanced" in inspect.signature(io.Float.Input.__init__).parameters else {}

_KNOWN = inspect.signature(io.Schema.__init__).parameters


def Schema(**fields):  # noqa: N802 (reads as the host's io.Schema)
    """io.Schema without the fields that this host does not know (0.3.75 has no search_aliases)."""
    return io.Schema(**{name: value for name, value in fields.items() if name in _KNOWN})


def check_limits(node, **values):
    """Raises ValueError for a value of an input that is beyond the limits of its widget."""
    for socket in node.define_schema().inputs:
        value = values.get(socket.id)
        if value is not None and not socket.min <= value <= socket.max:
            # Python writes no number of thousands of digits
            came = value if abs(value) < 1e18 else "far too large or small"
            raise input_error(f"{socket.id} is {came}; enter a number from {socket.min} to {socket.max}")
