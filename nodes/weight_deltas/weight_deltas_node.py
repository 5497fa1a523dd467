"""KronA and Custom Diffusion files, as weight patches and words."""

from comfy_api.latest import io

from .. import schema
from ..files.model_files import LORAS, stamp, valid
from ..widgets import file_input
from .custom_diffusion import attach_custom_diffusion
from .krona import attach_krona

_CATEGORY = "personalization/words"


class KronALoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationKronALoader",
            display_name="Load KronA",
            category=_CATEGORY,
            description="Loads a DiffuseKronA file, which Load LoRA takes for a LoRA and does not apply. The result is "
            "patched like a LoRA, and adds to others in any order.",
            search_aliases=["KronA", "DiffuseKronA", "Kronecker adapter", "LoRA"],
            inputs=[
                io.Model.Input("model", tooltip="The family that the file was trained on: SD1.5, SD2.1 or SDXL."),
                file_input("krona_file", "A pytorch_lora_weights.safetensors of DiffuseKronA, in models/loras.", LORAS),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-2.0,
                    max=2.0,
                    step=0.05,
                    tooltip="1 as trained, 0 leaves the model as it is.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="For the sampler, Add Concept, or further LoRAs."),
                io.String.Output(display_name="report", tooltip="What the file holds."),
            ],
        )

    @classmethod
    def validate_inputs(cls, krona_file=None):
        return valid("krona_file", krona_file, LORAS)

    @classmethod
    def fingerprint_inputs(cls, krona_file=None, **_):
        return stamp([krona_file], LORAS)

    @classmethod
    @schema.within_limits()
    def execute(cls, model, krona_file, strength) -> io.NodeOutput:
        return io.NodeOutput(*attach_krona(model, krona_file, strength))


class CustomDiffusionLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationCustomDiffusionLoader",
            display_name="Load Custom Diffusion",
            category=_CATEGORY,
            description="Loads a Custom Diffusion or DisenDiff file: trained keys and values as a change of weights, "
            "and its words. It adds to LoRAs and to further files in any order.",
            search_aliases=["Custom Diffusion", "DisenDiff", "delta.bin", "concept"],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint to change; LoRAs go before or after."),
                io.Clip.Input("clip", tooltip="Its text encoder; it learns the words."),
                file_input(
                    "delta_file",
                    "delta.bin, delta_epoch=*.ckpt, pytorch_custom_diffusion_weights.bin, in models/loras.",
                    LORAS,
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="1 as trained, 0 is the checkpoint itself, and linear in between.",
                ),
                io.String.Input(
                    "words",
                    default="",
                    tooltip="Other names for the file's words, in order, such as <dog> <cat>; empty keeps <new1>, ...",
                ),
                io.Model.Input(
                    "trained_on",
                    optional=True,
                    tooltip="The checkpoint that the file was trained on, needed if model is another one: only what "
                    "training changed is then added.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="For the sampler, Add Concept, or further LoRAs."),
                io.Clip.Output(display_name="clip", tooltip="For CLIP Text Encode: it knows the words."),
                io.String.Output(display_name="words", tooltip="The words, to use in a prompt with their class word."),
            ],
        )

    @classmethod
    def validate_inputs(cls, delta_file=None):
        return valid("delta_file", delta_file, LORAS)

    @classmethod
    def fingerprint_inputs(cls, delta_file=None, **_):
        return stamp([delta_file], LORAS)

    @classmethod
    @schema.within_limits()
    def execute(cls, model, clip, delta_file, strength, words, trained_on=None) -> io.NodeOutput:
        settings = {"strength": strength, "words": words, "trained_on": trained_on}
        return io.NodeOutput(*attach_custom_diffusion(model, clip, delta_file, **settings))


NODES = [KronALoader, CustomDiffusionLoader]
