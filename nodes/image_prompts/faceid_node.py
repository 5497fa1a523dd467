"""FaceID: people by their faces, each bound to a word, on SD1.5 and SDXL."""

from comfy_api.latest import io

from .. import schema
from ..faces.face_wire import FaceAnalysisSocket
from ..host.when import Window
from ..image_adapters.faceid_tokens import VERSIONS
from ..image_adapters.image_adapter_wire import ImageAdapterSocket
from ..references.references_wire import References
from ..widgets import window_inputs
from .faceid import FaceIDSettings, attach_faceid
from .merge_widgets import merge_inputs


class FaceID(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationFaceID",
            display_name="FaceID",
            category="personalization/faces",
            description="Puts people into the picture by their faces, one photo each and several people at once: "
            "IP-Adapter's FaceID, plus, plus v2 and portrait files, for SD1.5 and SDXL. For non-commercial research "
            "only, as its files and face networks are.",
            search_aliases=["IP-Adapter FaceID", "face swap", "portrait", "identity", "insightface"],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint, with any LoRAs and other patches."),
                ImageAdapterSocket.Input(
                    "adapter", tooltip="From Load Image Adapter: a FaceID file for the checkpoint's family."
                ),
                FaceAnalysisSocket.Input("face_analysis", tooltip="From Load Face Analysis: buffalo_l."),
                io.Clip.Input("clip", tooltip="The checkpoint's CLIP; it reads the references' words."),
                io.Float.Input(
                    "scale",
                    default=1.0,
                    min=0.0,
                    max=5.0,
                    step=0.05,
                    tooltip="Likeness versus freedom of the prompt: 0 is off, 1 as published.",
                ),
                io.Float.Input(
                    "structure",
                    default=1.0,
                    min=0.0,
                    max=5.0,
                    step=0.05,
                    tooltip="How much a plus v2 file takes from the look of the face, in addition to who it is; up to "
                    "2 for more likeness. Other files ignore it.",
                    **schema.ADVANCED,
                ),
                io.Float.Input(
                    "lora_strength",
                    default=1.0,
                    min=-5.0,
                    max=5.0,
                    step=0.05,
                    tooltip="Strength of the LoRA in the file: 1 as published, 0.6 for more freedom, 0 without it. "
                    "Portrait files have none.",
                ),
                io.Combo.Input(
                    "version",
                    options=list(VERSIONS),
                    default=VERSIONS[0],
                    tooltip="The version of a plus file, which its contents do not show. auto: from the file's name.",
                    **schema.ADVANCED,
                ),
                *merge_inputs(
                    "weighted: each place takes the people by how much it belongs to each one's word. joint: "
                    "all people act everywhere, as published; words are not needed.",
                    "How sharply places are assigned: 2 to 4 keeps similar people apart, 0 mixes equally. Only "
                    "for merge weighted.",
                ),
                *window_inputs(
                    "Start later for a freer layout. The LoRA acts on all steps.",
                    "End earlier to let the checkpoint finish the details by itself.",
                ),
                io.ClipVision.Input(
                    "clip_vision", optional=True, tooltip="From Load CLIP Vision: ViT-H, for plus files only."
                ),
                References.Input(
                    "references", optional=True, tooltip="From Add Reference or Add Faces; one per person."
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
        clip,
        scale,
        structure,
        lora_strength,
        version,
        merge,
        merge_power,
        start_percent,
        end_percent,
        clip_vision=None,
        references=(),
    ) -> io.NodeOutput:
        settings = FaceIDSettings(
            scale=scale,
            structure=structure,
            lora_strength=lora_strength,
            version=version,
            merge=merge,
            merge_power=merge_power,
            window=Window(start_percent, end_percent),
        )
        return io.NodeOutput(
            attach_faceid(model, adapter, face_analysis, clip, clip_vision, references or (), settings)
        )


NODES = [FaceID]
