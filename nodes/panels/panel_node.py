"""Panel Grid and Panel Crop: references as tiles of one picture, and the tile that a model has filled."""

from comfy_api.latest import io

from .. import schema
from ..host.choices import check_listed
from .panel_grid import LAYOUTS, panel_crop, panel_grid
from .panel_wire import PanelSocket


def _side(name, which):
    tooltip = f"{which} of one tile in pixels; rounded up to a multiple of 8."
    return io.Int.Input(name, default=256, min=8, max=4096, step=8, tooltip=tooltip)


class PanelGrid(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationPanelGrid",
            display_name="Panel Grid",
            category="personalization/panels",
            description="References as the tiles of one picture with one tile left free, for an inpainting model to "
            "fill in their style (IP-Prompter).",
            search_aliases=["IP-Prompter", "T-Prompter", "in-context", "contact sheet"],
            inputs=[
                io.Image.Input("images", tooltip="The references, ideally of one style; too few of them repeat."),
                io.Combo.Input(
                    "layout",
                    options=list(LAYOUTS),
                    default="3x3 middle",
                    tooltip="How many tiles, and which one is left free.",
                ),
                _side("tile_width", "Width"),
                _side("tile_height", "Height"),
                io.Image.Input(
                    "pinned",
                    optional=True,
                    tooltip="Pictures that keep their places: above, below, left and right of the middle tile, in "
                    "this order.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="All tiles as one picture, the free one grey."),
                io.Mask.Output(display_name="mask", tooltip="White on the free tile: what is to be painted."),
                PanelSocket.Output(display_name="panel", tooltip="Where the free tile lies, for Panel Crop."),
            ],
        )

    @classmethod
    @schema.within_limits()
    def execute(cls, images, layout, tile_width, tile_height, pinned=None) -> io.NodeOutput:
        check_listed("layout", layout, LAYOUTS)
        return io.NodeOutput(*panel_grid(images, layout, (tile_width, tile_height), pinned))


class PanelCrop(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationPanelCrop",
            display_name="Panel Crop",
            category="personalization/panels",
            description="Cuts the tile that the model has filled out of the result of a Panel Grid.",
            search_aliases=["IP-Prompter", "T-Prompter"],
            inputs=[
                io.Image.Input("image", tooltip="The result: the picture of Panel Grid with its free tile painted."),
                PanelSocket.Input("panel", tooltip="From the Panel Grid that the picture came from."),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The painted tile.")],
        )

    @classmethod
    def execute(cls, image, panel) -> io.NodeOutput:
        return io.NodeOutput(panel_crop(image, panel))


NODES = [PanelGrid, PanelCrop]
