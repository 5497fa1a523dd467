"""AlignIT: a trained concept keeps its look, and the rest of the prompt is read as without it."""

from comfy_api.latest import io

from .. import schema
from .alignit import ALIGNED, align
from .alignit_model import attach_alignit

_CATEGORY = "personalization/words"


class AlignPrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationAlignIT",
            display_name="AlignIT",
            category=_CATEGORY,
            description="Encodes a prompt so that only the concept's own tokens come from the customised text encoder, "
            "and all others from the base one. Helps when a trained concept makes the model ignore the prompt.",
            search_aliases=["AlignIT", "prompt alignment", "concept", "overfitting"],
            inputs=[
                io.Clip.Input("clip", tooltip="The customised text encoder, which knows the concept (LoRA, words)."),
                io.Clip.Input(
                    "base_clip", tooltip="The text encoder without the concept, straight from the checkpoint."
                ),
                io.String.Input("prompt", default="", multiline=True, tooltip="The prompt, with the concept in it."),
                io.String.Input(
                    "concept",
                    default="",
                    tooltip="The words of the concept as they stand in the prompt, such as <new1> cat.",
                ),
                io.String.Input(
                    "class_word",
                    default="",
                    tooltip="What the base model reads in their place: an ordinary word such as cat.",
                ),
                io.String.Input(
                    "dummy",
                    default="a photo of a {}",
                    tooltip="The short prompt that the concept is read in; {} stands for it.",
                ),
                io.Combo.Input(
                    "parts",
                    options=list(ALIGNED),
                    default=ALIGNED[0],
                    tooltip="What is aligned: keys decide where, values what. keys or values need AlignIT Model.",
                    **schema.ADVANCED,
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="conditioning", tooltip="The positive prompt, for the sampler.")
            ],
        )

    @classmethod
    def execute(cls, clip, base_clip, prompt, concept, class_word, dummy, parts) -> io.NodeOutput:
        return io.NodeOutput(align(clip, base_clip, (prompt, concept, class_word, dummy), parts))


class AlignModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationAlignITModel",
            display_name="AlignIT Model",
            category=_CATEGORY,
            description="For concepts with weights (LoRA, Custom Diffusion, DreamBooth): keys and values of the tokens "
            "that AlignIT marks are computed with the base model's weights.",
            search_aliases=["AlignIT", "prompt alignment"],
            inputs=[
                io.Model.Input("model", tooltip="The customised model, which is sampled."),
                io.Model.Input("base_model", tooltip="The model without the concept, straight from the checkpoint."),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="For the sampler, with AlignIT's prompt.")],
        )

    @classmethod
    def execute(cls, model, base_model) -> io.NodeOutput:
        return io.NodeOutput(attach_alignit(model, base_model))


NODES = [AlignPrompt, AlignModel]
