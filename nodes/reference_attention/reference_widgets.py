"""Widgets that nodes with references in self-attention share."""

from comfy_api.latest import io

from .. import schema
from ..references.references_wire import References
from ..widgets import cache_input, seed_input
from .reference_settings import TEXTS

# what is drawn, and not inverted
DRAWN = ("fresh", "fixed")


def text_input(tooltip, **more):
    """reference_prompt: what the references read beside the prompt's rows."""
    return io.Combo.Input("reference_prompt", options=list(TEXTS), default=TEXTS[0], tooltip=tooltip, **more)


def noise_inputs(noises=DRAWN, more="", on_disk=""):
    """reference_noise, reference_seed and cache_mb, then the references themselves; more, on_disk: for tooltips."""
    return [
        io.Combo.Input(
            "reference_noise",
            options=list(noises),
            default="fresh",
            tooltip="Noise on the references: fresh at each step (as published), or one fixed draw (smoother with few "
            f"steps){more}.",
            **schema.ADVANCED,
        ),
        seed_input(
            "reference_seed",
            "Seed of that noise. Leave it unchanged, so that further pictures can reuse the references' work.",
            **schema.ADVANCED,
        ),
        cache_input(
            "RAM (MiB) for the references' keys and values, so that further pictures cost almost nothing "
            f"extra{on_disk}. 0: keep nothing.",
            **schema.ADVANCED,
        ),
        References.Input("references", optional=True, tooltip="From Add Reference; chain several."),
    ]
