"""Masks of Concept Conductor, shown after a run."""

from comfy_api.latest import io

from .. import schema
from .mask_pictures import mask_pictures


class ConceptMaskPictures(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationConceptMasks",
            display_name="Show Concept Masks",
            category="personalization/concept_conductor",
            description="Shows where each subject of Concept Conductor was in the last picture: its mask at the "
            "start, and what it became after adapting to the shapes.",
            search_aliases=["preview masks", "Concept Conductor"],
            inputs=[
                io.Model.Input("model", tooltip="The MODEL from Concept Conductor that was sampled."),
                io.Latent.Input(
                    "samples",
                    tooltip="The LATENT that the sampler made with that MODEL; the masks are shown after the run.",
                ),
                io.Image.Input("images", optional=True, tooltip="The result, shown under the masks."),
            ],
            outputs=[
                io.Image.Output(display_name="pictures", tooltip="One row per picture: masks at the start, at the end.")
            ],
        )

    @classmethod
    def execute(cls, model, samples, images=None) -> io.NodeOutput:
        return io.NodeOutput(mask_pictures(model, samples, images))


NODES = [ConceptMaskPictures]
