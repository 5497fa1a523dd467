"""Subject Mask: the masks of one subject in many pictures, from its mask in one."""

from comfy_api.latest import io

from .. import schema
from .persam import subject_masks
from .sam_wire import SAMSocket


class SubjectMask(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationSubjectMask",
            display_name="Subject Mask",
            category="personalization/masks",
            description="One picture with a mask of the subject, any number of other pictures: finds the same subject "
            "in each and masks it (PerSAM). No training, no words.",
            search_aliases=["PerSAM", "segment anything", "find subject", "mask by example"],
            inputs=[
                SAMSocket.Input("sam", tooltip="From Load SAM."),
                io.Image.Input("reference_image", tooltip="A picture that shows the subject."),
                io.Mask.Input("reference_mask", tooltip="White on the subject in that picture."),
                io.Image.Input("images", tooltip="The pictures in which it is to be found."),
                io.Boolean.Input(
                    "fit",
                    default=False,
                    tooltip="PerSAM-F: learns from the reference which of SAM's masks (part, thing, group) is meant. "
                    "Try it where only a part of the subject is found, or too much.",
                ),
            ],
            outputs=[
                io.Mask.Output(display_name="masks", tooltip="White on the subject, one mask per picture."),
                io.String.Output(display_name="report", tooltip="SAM's own score and the area for each picture."),
            ],
        )

    @classmethod
    def execute(cls, sam, reference_image, reference_mask, images, fit) -> io.NodeOutput:
        return io.NodeOutput(*subject_masks(sam, reference_image, reference_mask, images, fit))


NODES = [SubjectMask]
