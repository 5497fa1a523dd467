"""The pocket model that comes with the pack: a small checkpoint that draws at once, on any machine."""

from comfy_api.latest import io

from .. import schema
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


NODES = [PocketModel]
