"""Widgets that several nodes share."""

from comfy_api.latest import io

from .files.model_files import choices, file_names
from .host.seeded import SEEDS


def whole(name, default, least, most, tooltip, **more):
    """The input of a whole number between two others."""
    return io.Int.Input(name, default=default, min=least, max=most, tooltip=tooltip, **more)


def seed_input(name, tooltip, **more):
    """The input of a seed: any that the host's own nodes take, the same from run to run."""
    return whole(name, 0, 0, SEEDS - 1, tooltip, control_after_generate=False, **more)


def cache_input(tooltip, **more):
    """cache_mb: how many MiB may be kept for further pictures."""
    return whole("cache_mb", 1024, 0, 1 << 20, tooltip, **more)


def file_input(name, tooltip, *kinds):
    """The dropdown of the files in the host's folders of these kinds, which are aliases of one another."""
    files = choices(file_names(*kinds), kinds[0])
    return io.Combo.Input(name, options=files, default=files[0], tooltip=tooltip)


def window_inputs(start, end, names=("start_percent", "end_percent")):
    """Where in sampling something begins and ends, as fractions of it, with their tooltips."""
    limits = {"min": 0.0, "max": 1.0, "step": 0.01}
    return [
        io.Float.Input(names[0], default=0.0, tooltip=start, **limits),
        io.Float.Input(names[1], default=1.0, tooltip=end, **limits),
    ]
