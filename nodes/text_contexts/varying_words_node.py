"""Words that mean another thing at each step: ProSpect's by stage, NeTI's made at every timestep and layer."""

from comfy_api.latest import io

from .. import schema
from ..files.model_files import EMBEDDINGS, stamp, valid
from ..widgets import file_input
from .neti import attach_neti
from .prospect import attach_prospect

_CATEGORY = "personalization/words"
_WORD = "What the concept is called in prompts; empty: "


def _outputs():
    return [
        io.Model.Output(display_name="model", tooltip="For the sampler: it reads the words as they change."),
        io.Clip.Output(display_name="clip", tooltip="For CLIP Text Encode: it knows the word."),
        io.String.Output(display_name="words", tooltip="The word, to use in a prompt."),
    ]


class ProSpectLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationProSpectLoader",
            display_name="Load ProSpect",
            category=_CATEGORY,
            description="Teaches the CLIP a word that means something else in each tenth of sampling, so that layout, "
            "content, or material and style of one picture can be taken apart.",
            search_aliases=["ProSpect", "prompt spectrum", "style transfer", "stages"],
            inputs=[
                io.Model.Input("model", tooltip="An SD1.x checkpoint, the family that these files are made for."),
                io.Clip.Input("clip", tooltip="Its text encoder; it learns the word."),
                file_input(
                    "prospect_file", "embeddings.pt or embeddings_gs-<step>.pt, in models/embeddings.", EMBEDDINGS
                ),
                io.String.Input("word", default="", tooltip=f"{_WORD}<name of the file>."),
            ],
            outputs=_outputs(),
        )

    @classmethod
    def validate_inputs(cls, prospect_file=None):
        return valid("prospect_file", prospect_file, EMBEDDINGS)

    @classmethod
    def fingerprint_inputs(cls, prospect_file=None, **_):
        return stamp([prospect_file], EMBEDDINGS)

    @classmethod
    def execute(cls, model, clip, prospect_file, word) -> io.NodeOutput:
        return io.NodeOutput(*attach_prospect(model, clip, prospect_file, word))


class NeTILoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationNeTILoader",
            display_name="Load NeTI",
            category=_CATEGORY,
            description="Teaches the CLIP a word whose vectors a small network makes anew at each step and for each "
            "layer of the UNet.",
            search_aliases=["NeTI", "neural textual inversion", "mapper"],
            inputs=[
                io.Model.Input("model", tooltip="An SD1.x checkpoint, the family that these files are made for."),
                io.Clip.Input("clip", tooltip="Its text encoder; it learns the word, and runs at every step."),
                file_input("mapper_file", "mapper-steps-N.pt or mapper-final.pt, in models/embeddings.", EMBEDDINGS),
                io.Int.Input(
                    "truncation",
                    default=128,
                    min=0,
                    max=128,
                    tooltip="How much of the network counts: 128 for likeness, 16 to 64 to let the prompt change more.",
                ),
                io.String.Input("word", default="", tooltip=f"{_WORD}the file's own name."),
            ],
            outputs=_outputs(),
        )

    @classmethod
    def validate_inputs(cls, mapper_file=None):
        return valid("mapper_file", mapper_file, EMBEDDINGS)

    @classmethod
    def fingerprint_inputs(cls, mapper_file=None, **_):
        return stamp([mapper_file], EMBEDDINGS)

    @classmethod
    @schema.within_limits()
    def execute(cls, model, clip, mapper_file, truncation, word) -> io.NodeOutput:
        return io.NodeOutput(*attach_neti(model, clip, mapper_file, truncation, word))


NODES = [ProSpectLoader, NeTILoader]
