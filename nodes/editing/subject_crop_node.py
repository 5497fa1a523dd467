"""Crop Subject and Paste Subject: a masked thing as a square picture, and the way back."""

from comfy_api.latest import io

from .. import schema
from ..host.choices import check_listed
from .crop_wire import CropSocket
from .subject_crop import BACKGROUNDS, cropped, pasted


class SubjectCrop(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationSubjectCrop",
            display_name="Crop Subject",
            category="personalization/editing",
            description="Cuts the masked subject out of a picture as a square on white, for VisCtrl or any other edit; "
            "Paste Subject puts the result back.",
            search_aliases=["VisCtrl", "crop by mask", "inpaint crop"],
            inputs=[
                io.Image.Input("image", tooltip="The picture with the subject."),
                io.Mask.Input("mask", tooltip="White on the subject; only full white counts."),
                io.Int.Input(
                    "size",
                    default=0,
                    min=0,
                    max=4096,
                    tooltip="Side of the square in pixels, best the checkpoint's native one; 0: 512.",
                ),
                io.Int.Input(
                    "grow",
                    default=0,
                    min=0,
                    max=512,
                    tooltip="Pixels of the picture by which the mask grows on all sides.",
                ),
                io.Combo.Input(
                    "background",
                    options=list(BACKGROUNDS),
                    default="white",
                    tooltip="white: the subject alone, as published. keep: with what is around it in the picture.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The subject in the middle of a square."),
                io.Mask.Output(display_name="mask", tooltip="White on the subject in that square."),
                CropSocket.Output(display_name="crop", tooltip="Where it came from, for Paste Subject."),
            ],
        )

    @classmethod
    @schema.within_limits()
    def execute(cls, image, mask, size, grow, background) -> io.NodeOutput:
        check_listed("background", background, BACKGROUNDS)
        return io.NodeOutput(*cropped(image, mask, size, grow, background))


class SubjectPaste(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationSubjectPaste",
            display_name="Paste Subject",
            category="personalization/editing",
            description="Puts an edited crop back into the picture that Crop Subject took it from; what lies outside "
            "the subject's box stays as it was.",
            search_aliases=["VisCtrl", "uncrop", "stitch"],
            inputs=[
                io.Image.Input("image", tooltip="The picture that the crop came from."),
                CropSocket.Input("crop", tooltip="From Crop Subject."),
                io.Image.Input("edited", tooltip="The crop after editing, of any size."),
                io.Int.Input(
                    "feather",
                    default=0,
                    min=0,
                    max=512,
                    tooltip="Width of the soft edge in pixels of the picture; 0: sharp, as published.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="White on the new subject in the edited crop, as Subject Mask finds it. Without it the "
                    "crop's own mask is used.",
                ),
            ],
            outputs=[io.Image.Output(display_name="image", tooltip="The picture with the new subject in it.")],
        )

    @classmethod
    @schema.within_limits()
    def execute(cls, image, crop, edited, feather, mask=None) -> io.NodeOutput:
        return io.NodeOutput(pasted(image, crop, edited, feather, mask))


NODES = [SubjectCrop, SubjectPaste]
