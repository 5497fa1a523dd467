"""Widgets that nodes share which give several objects or people their own places."""

from comfy_api.latest import io

from .. import schema
from .mip_adapter import MERGES


def merge_inputs(merge, power):
    """merge and merge_power, with their tooltips."""
    return [
        io.Combo.Input("merge", options=list(MERGES), default=MERGES[0], tooltip=merge),
        io.Float.Input("merge_power", default=1.0, min=0.0, max=20.0, step=0.1, tooltip=power, **schema.ADVANCED),
    ]
