"""A MODEL or CLIP whose weights lie where a training can read them: newer hosts may stream them instead."""

import inspect

from ..host.messages import input_error
from ..text_contexts.concept_words import with_words, words_of


def in_one_place(owner, name):
    """A clone of a MODEL or CLIP whose weights are in one place; `name` says which input it is.

    Raises ValueError for one that streams its weights from a loader that cannot do otherwise.
    """
    patcher = getattr(owner, "patcher", owner)
    if not getattr(patcher, "is_dynamic", lambda: False)():
        return owner.clone()
    if "disable_dynamic" in inspect.signature(owner.clone).parameters:
        try:
            made = owner.clone(disable_dynamic=True)
        except RuntimeError as error:
            reason = str(error)
        else:
            return made if owner is patcher else _of_one_network(made)
    else:
        reason = "this ComfyUI cannot"
    raise input_error(
        f"{name} streams its weights from a loader that cannot hold them in one place ({reason}); load it with "
        "Load Checkpoint, or start ComfyUI with --disable-dynamic-vram"
    )


def _of_one_network(clip):
    """The host's clone of a CLIP: its patcher has a network of its own, and calls still go to the one that streams."""
    clip.cond_stage_model = clip.patcher.model
    words = words_of(clip)
    return with_words(clip, words) if words else clip
