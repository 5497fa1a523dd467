"""Sample pictures that the pack ships, so that every template runs at once."""

from pathlib import Path

from comfy_api.latest import io

from . import schema
from .files.picture_files import mask_file, picture_file
from .host.choices import check_listed

_FOLDER = Path(__file__).parent.parent / "workflows" / "images"
PICTURES = ("cat", "coffee", "astronaut", "rocket")
# things that the pocket model has never seen, and two in looks that no word of its prompts names
POCKET_PICTURES = ("pocket_lion", "pocket_castle", "pocket_heart", "pocket_star")


class SamplePicture(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationSample",
            display_name="Sample Picture",
            category="personalization",
            description="A free picture with the mask of its subject, to try the nodes with.",
            inputs=[
                io.Combo.Input(
                    "picture",
                    options=[*PICTURES, *POCKET_PICTURES],
                    default="cat",
                    tooltip="A photograph; for Pocket Model, use one of the pocket_ pictures.",
                )
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The picture."),
                io.Mask.Output(display_name="mask", tooltip="White where its subject is."),
            ],
        )

    @classmethod
    def execute(cls, picture) -> io.NodeOutput:
        check_listed("picture", picture, (*PICTURES, *POCKET_PICTURES))
        return io.NodeOutput(picture_file(_FOLDER / f"{picture}.jpg"), mask_file(_FOLDER / f"{picture}_mask.png"))


NODES = [SamplePicture]
