"""StoryMaker: people with their faces, hair, clothes and bodies, up to three, on SDXL."""

from comfy_api.latest import io

from .. import schema
from ..faces.face_wire import FaceAnalysisSocket
from ..host.when import Window
from ..image_adapters.image_adapter_wire import ImageAdapterSocket
from ..references.references_wire import References
from ..widgets import window_inputs
from .storymaker import StoryMakerInputs, StoryMakerSettings, attach_storymaker


class StoryMaker(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationStoryMaker",
            display_name="StoryMaker",
            category="personalization/faces",
            description="Keeps a person's face, hair, clothes and body from picture to picture, for up to three people "
            "at once, on SDXL. For non-commercial research only, as its face networks are.",
            search_aliases=["consistent character", "story", "clothes", "identity", "insightface"],
            inputs=[
                io.Model.Input("model", tooltip="An SDXL checkpoint, with any LoRAs and other patches."),
                ImageAdapterSocket.Input("adapter", tooltip="From Load Image Adapter: StoryMaker's mask.bin."),
                FaceAnalysisSocket.Input("face_analysis", tooltip="From Load Face Analysis: buffalo_l."),
                io.ClipVision.Input("clip_vision", tooltip="From Load CLIP Vision: ViT-H."),
                io.Float.Input(
                    "scale",
                    default=0.8,
                    min=0.0,
                    max=5.0,
                    step=0.05,
                    tooltip="Likeness versus freedom of the prompt: 0 is off, 0.8 as published.",
                ),
                io.Float.Input(
                    "lora_strength",
                    default=0.8,
                    min=-5.0,
                    max=5.0,
                    step=0.05,
                    tooltip="Strength of the LoRA in the file: 0.8 as published, 0 without it.",
                ),
                *window_inputs(
                    "Start later for a freer layout. The LoRA acts on all steps.",
                    "End earlier to let the checkpoint finish the details by itself.",
                ),
                io.Image.Input(
                    "cloth",
                    optional=True,
                    tooltip="Other clothes: the first picture for the first person, and so on. It replaces what the "
                    "person's own picture shows of the body.",
                ),
                References.Input(
                    "references",
                    optional=True,
                    tooltip="From Add Reference, one per person, up to three, each with a mask of the whole person.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The checkpoint with the people in its cross-attention.")],
        )

    @classmethod
    @schema.within_limits()
    def execute(
        cls,
        model,
        adapter,
        face_analysis,
        clip_vision,
        scale,
        lora_strength,
        start_percent,
        end_percent,
        cloth=None,
        references=(),
    ) -> io.NodeOutput:
        settings = StoryMakerSettings(scale, lora_strength, Window(start_percent, end_percent))
        inputs = StoryMakerInputs(adapter, face_analysis, clip_vision, cloth, references or ())
        return io.NodeOutput(attach_storymaker(model, inputs, settings))


NODES = [StoryMaker]
