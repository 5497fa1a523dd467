"""Perfusion: concepts that edit keys and values where their word is meant."""

from comfy_api.latest import io

from .. import schema
from ..files.model_files import EMBEDDINGS, stamp, valid
from ..widgets import file_input
from .perfusion import LOCKS, Gate, attach_perfusion


class PerfusionLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationPerfusionLoader",
            display_name="Load Perfusion",
            category="personalization/words",
            description="Loads a concept of some 100 KB that changes keys and values only where its word is meant. "
            "Chain several nodes for several concepts in one picture.",
            search_aliases=["Perfusion", "key-locked rank-one editing", "concept"],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint that the file was trained on, SD1.5 or SD2.1."),
                io.Clip.Input("clip", tooltip="Its text encoder; it learns the word."),
                file_input(
                    "perfusion_file",
                    "A file of either published trainer (.ckpt or .pt), in models/embeddings.",
                    EMBEDDINGS,
                ),
                io.String.Input(
                    "word",
                    default="",
                    tooltip="What the concept is called in prompts; empty: <name of the file>. Several concepts in one "
                    "file: as many names.",
                ),
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=2.0, step=0.05, tooltip="1 as published, 0 turns it off."
                ),
                io.Float.Input(
                    "beta",
                    default=0.7,
                    min=0.0,
                    max=1.5,
                    step=0.01,
                    tooltip="How close to the concept a token must be to count: lower for more likeness (0.6 to 0.75 "
                    "with local lock, 0.4 to 0.6 with global).",
                ),
                io.Float.Input(
                    "tau",
                    default=0.15,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="How gradually it begins to count; small values give a sharp border.",
                ),
                io.Combo.Input(
                    "key_lock",
                    options=list(LOCKS),
                    default=LOCKS[0],
                    tooltip="Where the concept stands: local, as its own word; global, as the class word.",
                ),
                io.String.Input(
                    "superclass",
                    default="",
                    tooltip="Its class word, such as teddy, for the global lock; empty: as the file says.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="For the sampler: it edits keys and values."),
                io.Clip.Output(display_name="clip", tooltip="For CLIP Text Encode: it knows the word."),
                io.String.Output(display_name="words", tooltip="The words, to use in a prompt."),
            ],
        )

    @classmethod
    def validate_inputs(cls, perfusion_file=None):
        return valid("perfusion_file", perfusion_file, EMBEDDINGS)

    @classmethod
    def fingerprint_inputs(cls, perfusion_file=None, **_):
        return stamp([perfusion_file], EMBEDDINGS)

    @classmethod
    @schema.within_limits()
    def execute(cls, model, clip, perfusion_file, word, strength, beta, tau, key_lock, superclass) -> io.NodeOutput:
        gate = Gate(strength, beta, tau)
        names = {"word": word, "key_lock": key_lock, "superclass": superclass}
        return io.NodeOutput(*attach_perfusion(model, clip, perfusion_file, gate, **names))


NODES = [PerfusionLoader]
