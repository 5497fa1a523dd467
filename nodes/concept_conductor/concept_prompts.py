"""What is doubtful about a concept's prompts and its LoRA, said on the node before a run."""

from ..host.attach import technique_of
from ..host.layered_prompts import contexts_of
from ..host.messages import warn_user
from ..host.prompt_extras import say_unused
from ..host.unet_inputs import check_prompt
from ..row_adapters.concept_deltas import loaded_nothing
from ..text_contexts.context_router import ContextRouter

INSTEAD = "a concept uses only the text of its prompt; a ControlNet on the main prompt acts on all concepts"


def check_concept(model, label, concept):
    """model: the base MODEL; label: what messages call the concept. Raises ValueError for prompts of another model."""
    for kind, text in (("prompt", concept.positive), ("negative prompt", concept.negative)):
        if not text:
            continue
        check_prompt(model, text, f"the {kind} of {label}")
        say_unused(text, f"the {kind} of {label}", INSTEAD)
    if loaded_nothing(model, concept.model):
        warn_user(
            f"{label} has no LoRA: nothing of the file that was loaded for it fits this checkpoint; choose a LoRA of "
            "its family"
        )
    taught = technique_of(concept.model, ContextRouter.name)
    has_words = taught is not None and taught.labels
    if has_words and not technique_of(model, ContextRouter.name) and not contexts_of(*concept.positive[0]):
        warn_user(
            f"{label}: its prompt contains none of the words that its model has from {taught.loaders}; write them into "
            "the prompt and encode it with the CLIP from there, or there will be little likeness"
        )
