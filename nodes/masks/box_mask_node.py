"""Masks that need no painting."""

from comfy_api.latest import io

from .. import schema
from .mask_of_box import mask_of_box


class BoxMask(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        def part(name, default, tooltip):
            return io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.01, tooltip=tooltip)

        return schema.Schema(
            node_id="PersonalizationBoxMask",
            display_name="Box Mask",
            category="personalization",
            description="A mask that is white in a box: a region of the result, or the place of a subject.",
            inputs=[
                part("x", 0.0, "Left edge of the box, as a fraction of the width."),
                part("y", 0.0, "Top edge of the box, as a fraction of the height."),
                part("width", 0.5, "Width of the box, as a fraction of the width; cut off at the edge of the picture."),
                part(
                    "height", 1.0, "Height of the box, as a fraction of the height; cut off at the edge of the picture."
                ),
                io.Int.Input(
                    "pixel_width",
                    default=512,
                    min=1,
                    max=16384,
                    tooltip="Width of the mask in pixels; best that of the picture.",
                ),
                io.Int.Input(
                    "pixel_height",
                    default=512,
                    min=1,
                    max=16384,
                    tooltip="Height of the mask in pixels; best that of the picture.",
                ),
                part(
                    "feather",
                    0.0,
                    "Width of the soft edge inside the box, as a fraction of the shorter side; 0: sharp.",
                ),
            ],
            outputs=[io.Mask.Output(display_name="mask", tooltip="White inside the box.")],
        )

    @classmethod
    @schema.within_limits()
    def execute(cls, x, y, width, height, pixel_width, pixel_height, feather) -> io.NodeOutput:
        return io.NodeOutput(mask_of_box((x, y, width, height), (pixel_width, pixel_height), feather))


NODES = [BoxMask]
