"""Concept files: learned words of every trainer in a CLIP, and copies of them for the host's own `embedding:`."""

from comfy_api.latest import io

from .. import schema
from ..files.model_files import EMBEDDINGS, stamp, valid
from ..widgets import file_input
from .concept_loader import convert_concept, load_concept
from .concept_words import POOLED

_CATEGORY = "personalization/words"


def _concept_file():
    return file_input(
        "concept_file",
        "A file in models/embeddings, of any trainer: textual inversions, learned_embeds.bin, Cross "
        "Initialization, ConceptExpress, MagicTailor, pivotal tuning, kohya bundles.",
        EMBEDDINGS,
    )


class ConceptLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationConceptLoader",
            display_name="Load Concept Words",
            category=_CATEGORY,
            description="Teaches the CLIP all learned words of a file, with all their vectors, for prompts that this "
            "clip encodes. `embedding:` reads only the first vector of many of these files.",
            search_aliases=["textual inversion", "embedding", "learned embeds", "pivotal tuning", "concept words"],
            inputs=[
                io.Clip.Input("clip", tooltip="The checkpoint's text encoder, of SD1.x, SD2.x or SDXL."),
                _concept_file(),
                io.String.Input(
                    "word",
                    default="",
                    tooltip="What the concept is called in prompts; empty keeps the file's names. Several words: as "
                    "many names, or one for all of them together.",
                ),
                io.Combo.Input(
                    "pooled",
                    options=list(reversed(POOLED)),
                    default=POOLED[1],
                    tooltip="SDXL only: where the prompt's summary is read. eos: at the end, as trainers of A1111 and "
                    "kohya do; concept: at the last word, as files from diffusers trainers expect.",
                    **schema.ADVANCED,
                ),
            ],
            outputs=[
                io.Clip.Output(display_name="clip", tooltip="For CLIP Text Encode: it knows the words."),
                io.String.Output(display_name="words", tooltip="The words in their order, to use in a prompt."),
            ],
        )

    @classmethod
    def validate_inputs(cls, concept_file=None):
        return valid("concept_file", concept_file, EMBEDDINGS)

    @classmethod
    def fingerprint_inputs(cls, concept_file=None, **_):
        return stamp([concept_file], EMBEDDINGS)

    @classmethod
    def execute(cls, clip, concept_file, word, pooled) -> io.NodeOutput:
        return io.NodeOutput(*load_concept(clip, concept_file, word, pooled))


class ConceptConvert(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationConceptConvert",
            display_name="Convert Concept Words",
            category=_CATEGORY,
            description="Writes the learned words of a file as files that the stock embedding: syntax reads whole, one "
            "for each word and one with all of them in order.",
            search_aliases=["textual inversion", "embedding", "convert embedding"],
            inputs=[
                _concept_file(),
                io.String.Input(
                    "file_name",
                    default="concept",
                    tooltip="Name of the new files in models/embeddings, without folders: <name>.safetensors, and "
                    "<name>_<word>.safetensors for each of several words. Other files are never overwritten.",
                ),
            ],
            outputs=[io.String.Output(display_name="path", tooltip="Where the file with all words was written.")],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, concept_file=None):
        return valid("concept_file", concept_file, EMBEDDINGS)

    @classmethod
    def fingerprint_inputs(cls, concept_file=None, **_):
        return stamp([concept_file], EMBEDDINGS)

    @classmethod
    def execute(cls, concept_file, file_name) -> io.NodeOutput:
        return io.NodeOutput(convert_concept(concept_file, file_name))


NODES = [ConceptLoader, ConceptConvert]
