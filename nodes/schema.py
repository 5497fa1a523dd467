"""What the node schema of older hosts lacks, and what no host asks of a value that comes over a wire."""

import functools
import inspect

from comfy_api.latest import io

from .host.messages import input_error

# Widgets that few people need: hosts that know the flag fold them away.
ADVANCED = {"advanced": True} if "advanced" in inspect.signature(io.Float.Input.__init__).parameters else {}

_KNOWN = inspect.signature(io.Schema.__init__).parameters


def Schema(**fields):  # noqa: N802 (reads as the host's io.Schema)
    """io.Schema without the fields that this host does not know (0.3.75 has no search_aliases)."""
    return io.Schema(**{name: value for name, value in fields.items() if name in _KNOWN})


def within_limits(*own):
    """For a node's execute, which then refuses a number beyond the limits of its widget (see check_limits), but for the
    inputs named here, which the node bounds itself.
    """

    def around(execute):
        @functools.wraps(execute)
        def checked(node, **values):
            check_limits(node, **{name: value for name, value in values.items() if name not in own})
            return execute(node, **values)

        return checked

    return around


def check_limits(node, **values):
    """Raises ValueError for the value of a numeric input that is no number or beyond the limits of its widget.

    The host refuses what a prompt itself holds beyond them, but for NaN, and looks at nothing that comes over a wire.
    """
    for socket in node.define_schema().inputs:
        value = values.get(socket.id)
        if not isinstance(socket, io.Int.Input | io.Float.Input) or value is None:
            continue
        if not socket.min <= value <= socket.max:
            # Python writes no number of thousands of digits
            came = value if isinstance(value, float) or abs(value) < 1e18 else "far too large or small"
            raise input_error(f"{socket.id} is {came}; enter a number from {socket.min} to {socket.max}")
