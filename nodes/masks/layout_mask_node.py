"""Layout Mask: a mask from a point in a picture."""

from comfy_api.latest import io

from .. import schema
from ..inversion.layout_picture import picture_of
from .layout_mask import layout_mask


def _place(name, tooltip):
    return io.Float.Input(name, default=0.5, min=0.0, max=1.0, step=0.01, tooltip=tooltip)


class LayoutMask(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationLayoutMask",
            display_name="Layout Mask",
            category="personalization/concept_conductor",
            description="A mask from one point in the layout picture: the shape there, as the checkpoint's own "
            "self-attention sees it. No painting, no extra model.",
            search_aliases=["segment", "point mask", "Concept Conductor"],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint."),
                io.Vae.Input("vae", tooltip="The checkpoint's VAE; it encodes the layout picture."),
                io.Image.Input("layout_image", tooltip="The picture, the same as for Concept Conductor."),
                io.Conditioning.Input(
                    "layout_positive", tooltip="A prompt that describes the picture, from the checkpoint's CLIP."
                ),
                _place("x", "The point: distance from the left, as a fraction of the width."),
                _place("y", "The point: distance from the top, as a fraction of the height."),
                io.Int.Input(
                    "clusters",
                    default=6,
                    min=2,
                    max=64,
                    tooltip="How many shapes the picture is divided into; fewer clusters give a larger area.",
                ),
                io.Boolean.Input(
                    "connected",
                    default=True,
                    optional=True,
                    tooltip="Only the part that is connected to the point: of two dogs, the one that is pointed at. "
                    "Off: all of the shape, wherever it shows, as published.",
                ),
            ],
            outputs=[io.Mask.Output(display_name="mask", tooltip="White where that shape is.")],
        )

    @classmethod
    @schema.within_limits()
    def execute(cls, model, vae, layout_image, layout_positive, x, y, clusters, connected=True) -> io.NodeOutput:
        pixels, text = picture_of(layout_image, layout_positive, vae)
        mask = layout_mask(model, vae, pixels, text, (x, y), clusters, connected=connected)
        return io.NodeOutput(mask)


NODES = [LayoutMask]
