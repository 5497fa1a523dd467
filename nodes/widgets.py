"""Widgets that several nodes share."""

from comfy_api.latest import io


def whole(name, default, least, most, tooltip, **more):
    """The input of a whole number between two others."""
    return io.Int.Input(name, default=default, min=least, max=most, tooltip=tooltip, **more)


def window_inputs(start, end, names=("start_percent", "end_percent")):
    """Where in sampling something begins and ends, as fractions of it, with their tooltips."""
    limits = {"min": 0.0, "max": 1.0, "step": 0.01}
    return [
        io.Float.Input(names[0], default=0.0, tooltip=start, **limits),
        io.Float.Input(names[1], default=1.0, tooltip=end, **limits),
    ]
