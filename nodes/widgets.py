"""Widgets that several nodes share."""

from comfy_api.latest import io


def window_inputs(start, end):
    """start_percent and end_percent of sampling, with their tooltips."""
    limits = {"min": 0.0, "max": 1.0, "step": 0.01}
    return [
        io.Float.Input("start_percent", default=0.0, tooltip=start, **limits),
        io.Float.Input("end_percent", default=1.0, tooltip=end, **limits),
    ]
