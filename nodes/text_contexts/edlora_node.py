"""ED-LoRA: a concept taught as new words with a LoRA, and its way to an ordinary LoRA file."""

from comfy_api.latest import io

from .. import schema
from ..files.model_files import LORAS, stamp, valid
from ..widgets import file_input
from .concept_words import POOLED
from .edlora import attach_edlora
from .edlora_lora import convert_edlora

_CATEGORY = "personalization/concept_conductor"


def edlora_file():
    tooltip = "A file in models/loras: .pth as trained (chow_dog.pth), or a safetensors copy."
    return file_input("edlora_file", tooltip, LORAS)


class EDLoRALoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        def strength(name, of):
            return io.Float.Input(
                name,
                default=0.7,
                min=-2.0,
                max=2.0,
                step=0.05,
                tooltip=f"Strength of the LoRA in {of}; 0.7 as published, 0 leaves it out. The words always stay.",
            )

        return schema.Schema(
            node_id="PersonalizationEDLoRALoader",
            display_name="Load ED-LoRA",
            category=_CATEGORY,
            description="Loads a concept that was trained as an ED-LoRA (Mix-of-Show, Concept Conductor): its LoRA in "
            "model and clip, and its own words, for prompts encoded with this clip.",
            search_aliases=["EDLoRA", "ED-LoRA", "Mix-of-Show", "Concept Conductor", "concept words", "P+"],
            inputs=[
                io.Model.Input("model", tooltip="An SD1.5 or SDXL checkpoint; style LoRAs go before or after this."),
                io.Clip.Input("clip", tooltip="The checkpoint's text encoder; it learns the concept's words."),
                edlora_file(),
                strength("strength_model", "the model"),
                strength("strength_clip", "the text encoder"),
                io.Combo.Input(
                    "pooled",
                    options=list(POOLED),
                    default=POOLED[0],
                    tooltip="SDXL only: where the prompt's summary is read. concept: at the concept's last word, as "
                    "these files were trained; eos: at the end of the prompt, as everywhere else.",
                    **schema.ADVANCED,
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The checkpoint with the LoRA, for the sampler."),
                io.Clip.Output(display_name="clip", tooltip="For CLIP Text Encode: it knows the concept's words."),
                io.String.Output(display_name="words", tooltip="The concept's words, to use in a prompt."),
            ],
        )

    @classmethod
    def validate_inputs(cls, edlora_file=None):
        return valid("edlora_file", edlora_file, LORAS)

    @classmethod
    def fingerprint_inputs(cls, edlora_file=None, **_):
        return stamp([edlora_file], LORAS)

    @classmethod
    @schema.within_limits()
    def execute(cls, model, clip, edlora_file, strength_model, strength_clip, pooled) -> io.NodeOutput:
        strengths = {"strength_model": strength_model, "strength_clip": strength_clip}
        return io.NodeOutput(*attach_edlora(model, clip, edlora_file, pooled=pooled, **strengths))


class EDLoRAConvert(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationEDLoRAConvert",
            display_name="Convert ED-LoRA",
            category=_CATEGORY,
            description="Writes the LoRA of an ED-LoRA as an ordinary LoRA file into the loras folder, and its words "
            "as a second file, which Load ED-LoRA reads.",
            search_aliases=["EDLoRA", "convert LoRA", "kohya"],
            inputs=[
                edlora_file(),
                io.String.Input(
                    "file_name",
                    default="concept",
                    tooltip="Name of the new files, without folders: <name>.safetensors and <name>_words.safetensors. "
                    "An existing file with different contents is never overwritten.",
                ),
            ],
            outputs=[io.String.Output(display_name="path", tooltip="Where the LoRA was written.")],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, edlora_file=None):
        return valid("edlora_file", edlora_file, LORAS)

    @classmethod
    def fingerprint_inputs(cls, edlora_file=None, **_):
        return stamp([edlora_file], LORAS)

    @classmethod
    def execute(cls, edlora_file, file_name) -> io.NodeOutput:
        return io.NodeOutput(convert_edlora(edlora_file, file_name))


NODES = [EDLoRALoader, EDLoRAConvert]
