"""Find Concepts: what is in a picture, without masks and without words."""

from comfy_api.latest import io

from .. import schema
from .find_concepts import find_concepts


class FindConcepts(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationFindConcepts",
            display_name="Find Concepts",
            category="personalization/training",
            description="Cuts one picture into the things that stand out of it, as the checkpoint's own attention sees "
            "them (ConceptExpress). No words, no painting, no further model.",
            search_aliases=["ConceptExpress", "segment", "unsupervised masks", "cut out things"],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint: SD1.5, SD2.x or SDXL."),
                io.Clip.Input("clip", tooltip="The checkpoint's CLIP; it encodes the empty prompt."),
                io.Vae.Input("vae", tooltip="The checkpoint's VAE; it encodes the picture."),
                io.Image.Input("image", tooltip="One picture with its things in it."),
                io.Int.Input(
                    "least",
                    default=10,
                    min=1,
                    max=1000,
                    tooltip="Minimum number of pieces before similar, touching pieces are merged. More finds smaller "
                    "things, fewer takes things together.",
                ),
                io.Int.Input(
                    "max_side",
                    default=64,
                    min=8,
                    max=128,
                    tooltip="Longer side of the grid on which things are told apart. 64 is that of SD1.5 at 512 "
                    "pixels; 128 takes sixteen times the memory and time.",
                    **schema.ADVANCED,
                ),
            ],
            outputs=[
                io.Mask.Output(display_name="masks", tooltip="White on a thing, one mask for each."),
                io.Image.Output(display_name="picture", tooltip="The picture with each thing in a colour of its own."),
                io.Int.Output(display_name="count", tooltip="How many things were found."),
            ],
        )

    @classmethod
    @schema.within_limits()
    def execute(cls, model, clip, vae, image, least, max_side) -> io.NodeOutput:
        return io.NodeOutput(*find_concepts(model, clip, vae, image, least, max_side))


NODES = [FindConcepts]
