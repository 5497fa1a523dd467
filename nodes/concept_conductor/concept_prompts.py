"""What is doubtful about a concept's prompts and its LoRA, said on the node before a run."""

from ..host.attach import technique_of
from ..host.layered_prompts import contexts_of
from ..host.messages import warn_user
from ..host.unet_inputs import check_prompt
from ..row_adapters.concept_deltas import loaded_nothing
from ..text_contexts.layer_contexts import LayerContexts

# What other nodes put on a prompt and a concept does not take: its place is its mask, all else is the main prompt's.
UNUSED = {
    "control": "a ControlNet (the one on the main prompt acts on all concepts)",
    "gligen": "GLIGEN boxes",
    "hooks": "hooks",
    "area": "an area",
    "mask": "a mask",
    "start_percent": "a timestep range",
}


def check_concept(model, label, concept):
    """model: the base MODEL; label: what messages call the concept. Raises ValueError for prompts of another model."""
    for kind, text in (("prompt", concept.positive), ("negative prompt", concept.negative)):
        if not text:
            continue
        check_prompt(model, text, f"the {kind} of {label}")
        unused = [said for name, said in UNUSED.items() if text[0][1].get(name) is not None]
        if len(text) > 1:
            unused.insert(0, f"{len(text)} combined prompts (only the first is used)")
        if unused:
            warn_user(f"the {kind} of {label} has {', '.join(unused)}; a concept uses only the text of its prompt")
    if loaded_nothing(model, concept.model):
        warn_user(
            f"{label} has no LoRA: nothing of the file that was loaded for it fits this checkpoint; choose a LoRA of "
            "its family"
        )
    if _has_words(concept.model) and not _has_words(model) and contexts_of(*concept.positive[0]) is None:
        warn_user(
            f"{label}: its model has an ED-LoRA, but its prompt contains none of the words; write them into the prompt "
            "and encode it with the CLIP from Load ED-LoRA, or there will be little likeness"
        )


def _has_words(model):
    return technique_of(model, LayerContexts.name) is not None
