"""The pocket model that comes with the pack: a small checkpoint that draws at once, on any machine; and what it needs.

Adapters that were trained for it stand in the lists of our loaders.
"""

from comfy_api.latest import io

from .. import schema
from .pocket_companions import load_vision, pocket_loras, with_pocket_lora
from .pocket_model import load_pocket


class PocketModel(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationPocketModel",
            display_name="Pocket Model",
            category="personalization",
            description="A small SD1.5 checkpoint that comes with the pack: everyday things on coloured backgrounds, "
            "128 x 128 pixels, a picture in seconds on any CPU. For trying the techniques; no files are needed.",
            search_aliases=["tiny checkpoint", "test model", "load checkpoint", "demo"],
            inputs=[],
            outputs=[
                io.Model.Output(tooltip="The UNet, for KSampler and for this pack's nodes."),
                io.Clip.Output(tooltip="The text encoder, for CLIP Text Encode; it knows the words on the help page."),
                io.Vae.Output(tooltip="The autoencoder, for VAE Decode and VAE Encode."),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(*load_pocket())


class PocketVision(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationPocketVision",
            display_name="Pocket Vision",
            category="personalization",
            description="The image encoder that goes with Pocket Model's image adapters and comes with the pack, in "
            "place of Load CLIP Vision.",
            search_aliases=["clip vision", "image encoder", "load clip vision"],
            inputs=[],
            outputs=[io.ClipVision.Output(tooltip="The image encoder, for MIP-Adapter.")],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(load_vision())


class PocketLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        names = list(pocket_loras())
        return schema.Schema(
            node_id="PersonalizationPocketLoRA",
            display_name="Pocket LoRA",
            category="personalization",
            description="A LoRA for Pocket Model that comes with the pack, in place of Load LoRA: a thing that the "
            "model has never seen, or a known one in another colour.",
            search_aliases=["load lora", "lora", "demo"],
            inputs=[
                io.Model.Input("model", tooltip="From Pocket Model."),
                io.Combo.Input(
                    "lora",
                    options=names,
                    tooltip="The thing that it brings; name it in the prompt by the first word of this name; a number "
                    "is a hue in degrees.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-2.0,
                    max=2.0,
                    step=0.05,
                    tooltip="Strength of the LoRA; 1 as trained, 0 leaves it out.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The model with the LoRA, for Add Concept or the sampler.")],
        )

    @classmethod
    @schema.within_limits()
    def execute(cls, model, lora, strength) -> io.NodeOutput:
        return io.NodeOutput(with_pocket_lora(model, lora, strength))


NODES = [PocketModel, PocketVision, PocketLoRA]
