"""Concepts: subjects taught through weights, each with its prompt and its place. The node that adds one."""

from comfy_api.latest import io

from .. import schema
from ..host.latents import batched_mask, bounded_mask
from ..host.messages import input_error
from .concepts_wire import Concept, Concepts, concept_label


class AddConcept(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationConcept",
            display_name="Add Concept",
            category="personalization",
            description="A subject that a LoRA knows: the checkpoint with that LoRA, its own prompt, and its place in "
            "the result. Chain one node per subject.",
            search_aliases=["LoRA character", "multi LoRA", "regional LoRA", "Concept Conductor"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The checkpoint with this subject's LoRAs, from any LoRA loader. Only what differs from "
                    "Concept Conductor's model belongs to this subject. Without a LoRA the area just gets its "
                    "own prompt.",
                ),
                io.Conditioning.Input(
                    "positive",
                    tooltip="The whole prompt, with every subject replaced by this subject's trigger words, encoded "
                    "by the CLIP from its LoRA loader.",
                ),
                io.String.Input(
                    "word", default="", tooltip="A name for this subject, used in messages and by Show Concept Masks."
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.05,
                    tooltip="Multiplies the strengths set in this subject's LoRA loaders: 1 leaves them as they are, "
                    "0 leaves the subject out.",
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="The negative prompt from this subject's own CLIP. Without it: the sampler's.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="White where this subject should be in the result: painted, from Box Mask or from Layout "
                    "Mask.",
                ),
                Concepts.Input("concepts", optional=True, tooltip="Further subjects, from another Add Concept."),
            ],
            outputs=[Concepts.Output(display_name="concepts", tooltip="All subjects so far; where they overlap, the "
            "last one is in front.")],
        )  # fmt: skip

    @classmethod
    @schema.within_limits()
    def execute(cls, model, positive, word, strength, negative=None, mask=None, concepts=()) -> io.NodeOutput:
        word = word.strip()
        label = concept_label(len(concepts or ()) + 1, word)
        if not positive:
            raise input_error(f"the prompt of {label} is empty; connect a CLIP Text Encode")
        concept = Concept(model, positive, word, strength, negative or None, _one_mask(mask, label))
        return io.NodeOutput((*(concepts or ()), concept))


def _one_mask(mask, label):
    if mask is None:
        return None
    mask = batched_mask(mask)
    if mask.ndim != 3 or len(mask) != 1:
        several = f"{len(mask)} masks" if mask.ndim == 3 else "no mask"
        raise input_error(
            f"{label} has {several} (shape {tuple(mask.shape)}); connect a single MASK (1, height, width)"
        )
    return bounded_mask(mask, label, "mask")[0].cpu()


NODES = [AddConcept]
