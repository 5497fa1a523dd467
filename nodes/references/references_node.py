"""References: the nodes that add and show them."""

from comfy_api.latest import io

from .. import schema
from ..host.messages import input_error
from .reference_preview import preview
from .references_wire import Reference, References


class AddReference(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationReference",
            display_name="Add Reference",
            category="personalization",
            description="A subject for the result: its picture, its mask and the prompt's word for it. Chain one node "
            "per subject; the chain feeds every technique that uses references.",
            search_aliases=["FreeCustom", "subject image", "reference image"],
            inputs=[
                io.Image.Input(
                    "image",
                    tooltip="The subject in its usual surroundings (a hat on a head, not on white). "
                    "A batch counts as several pictures.",
                ),
                io.String.Input(
                    "word", default="", tooltip="The word that stands for this subject in your prompt, such as dog."
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.05,
                    tooltip="This subject's share among several: 0 is off, 1 as published, 2 counts it twice.",
                ),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    placeholder="what this picture shows",
                    tooltip="What this picture shows, in the words of your prompt: a photo of a dog on grass. "
                    "Empty: the word.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="White where the subject is; the rest of the picture is ignored. Without a mask the whole "
                    "picture is used. Load Image gives white where a picture is transparent: invert that "
                    "first.",
                ),
                io.Mask.Input(
                    "region",
                    optional=True,
                    tooltip="White where in the result this subject may act, of any size. Without it: everywhere.",
                ),
                References.Input("references", optional=True, tooltip="Further subjects, from another Add Reference."),
            ],
            outputs=[References.Output(display_name="references", tooltip="All subjects so far.")],
        )

    @classmethod
    @schema.within_limits()
    def execute(cls, image, word, strength, prompt, mask=None, region=None, references=()) -> io.NodeOutput:
        return io.NodeOutput(
            (*(references or ()), Reference(image, word.strip(), strength, prompt.strip(), mask, region))
        )


class ReferencePreview(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationReferencePreview",
            display_name="Preview References",
            category="personalization",
            description="Shows each reference with its mask as the UNet's layers will see it, on the 64, 32 and 16 "
            "grids of a 512 x 512 picture, so you notice when a thin mask vanishes.",
            inputs=[References.Input("references", tooltip="From Add Reference.")],
            outputs=[
                io.Image.Output(
                    display_name="pictures",
                    tooltip="One row of panels per picture: the picture with its mask, then three grids.",
                )
            ],
        )

    @classmethod
    def execute(cls, references) -> io.NodeOutput:
        if not references:
            raise input_error("no references are connected; connect Add Reference")
        return io.NodeOutput(preview(references))


NODES = [AddReference, ReferencePreview]
