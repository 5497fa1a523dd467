"""InstantID: people by their faces and where these stand, several at once, on SDXL."""

from comfy_api.latest import io

from .. import schema
from ..faces.face_wire import FaceAnalysisSocket
from ..host.when import Window
from ..image_adapters.image_adapter_wire import ImageAdapterSocket
from ..references.references_wire import References
from ..widgets import window_inputs
from .instantid import PASSES, VIEWS, InstantIDInputs, InstantIDSettings, attach_instantid
from .merge_widgets import merge_inputs

_CONTROL_WINDOW = "control_start", "control_end"


class InstantID(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationInstantID",
            display_name="InstantID",
            category="personalization/faces",
            description="Puts people into the picture by their faces, one photo each and several people at once, each "
            "where you want them: the strongest likeness, on SDXL. For non-commercial research only, as its face "
            "networks are.",
            search_aliases=["IdentityNet", "face swap", "identity", "antelopev2", "insightface"],
            inputs=[
                io.Model.Input("model", tooltip="An SDXL checkpoint, with any LoRAs and other patches."),
                ImageAdapterSocket.Input("adapter", tooltip="From Load Image Adapter: InstantID's ip-adapter.bin."),
                FaceAnalysisSocket.Input("face_analysis", tooltip="From Load Face Analysis: antelopev2."),
                io.Clip.Input("clip", tooltip="The checkpoint's CLIP; it reads the references' words."),
                io.Float.Input(
                    "scale",
                    default=0.8,
                    min=0.0,
                    max=5.0,
                    step=0.05,
                    tooltip="Likeness versus freedom of the prompt: 0 is off, 0.8 as published; lower it first if the "
                    "picture looks burnt.",
                ),
                io.Float.Input(
                    "control_strength",
                    default=0.8,
                    min=0.0,
                    max=5.0,
                    step=0.05,
                    tooltip="Strength of IdentityNet, which places the faces: raise it first for more likeness.",
                ),
                *merge_inputs(
                    "weighted: each place takes the people by how much it belongs to each one's word. joint: "
                    "all people act everywhere; words are not needed.",
                    "How sharply places are assigned: 2 to 4 keeps similar people apart, 0 mixes equally. Only "
                    "for merge weighted.",
                ),
                io.Combo.Input(
                    "views",
                    options=list(VIEWS),
                    default=VIEWS[0],
                    tooltip="How several pictures of one person in a batch are read. average: as one face. joint: all "
                    "side by side, an option of the published code.",
                    **schema.ADVANCED,
                ),
                io.Combo.Input(
                    "control_passes",
                    options=list(PASSES),
                    default=PASSES[0],
                    tooltip="per person: IdentityNet sees each face alone, 44 % of a step for each. together: all "
                    "faces in one pass: cheaper, but people mix more.",
                    **schema.ADVANCED,
                ),
                io.Float.Input(
                    "negative_noise",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Noise in what the negative sees instead of a face: 0 as published, 0.35 softens burnt "
                    "pictures.",
                    **schema.ADVANCED,
                ),
                *window_inputs(
                    "Start of the image part. Later for a freer layout.",
                    "End of the image part. Earlier to let the checkpoint finish the details by itself.",
                ),
                *window_inputs(
                    "When IdentityNet begins.",
                    "When IdentityNet stops; steps without it cost a third less for one person, almost half for two.",
                    _CONTROL_WINDOW,
                ),
                io.ControlNet.Input(
                    "control_net",
                    optional=True,
                    tooltip="InstantID's ControlNetModel (IdentityNet), from Load ControlNet Model. Without it faces "
                    "are not placed and the likeness is weaker.",
                ),
                io.Image.Input(
                    "pose_image",
                    optional=True,
                    tooltip="Where the faces should be: a picture with a face per person, left to right in the order "
                    "of the references, or one picture per person. Without it: where they stand in their own pictures.",
                ),
                References.Input(
                    "references", optional=True, tooltip="From Add Reference or Add Faces; one per person."
                ),
            ],
            outputs=[io.Model.Output(tooltip="The checkpoint with the people in its cross-attention and IdentityNet.")],
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
        control_strength,
        merge,
        merge_power,
        views,
        control_passes,
        negative_noise,
        start_percent,
        end_percent,
        control_start,
        control_end,
        control_net=None,
        pose_image=None,
        references=(),
    ) -> io.NodeOutput:
        settings = InstantIDSettings(
            scale=scale,
            control_strength=control_strength,
            merge=merge,
            merge_power=merge_power,
            views=views,
            control_passes=control_passes,
            negative_noise=negative_noise,
            window=Window(start_percent, end_percent),
            control_window=Window(control_start, control_end, _CONTROL_WINDOW),
        )
        inputs = InstantIDInputs(adapter, face_analysis, clip, control_net, pose_image, references or ())
        return io.NodeOutput(attach_instantid(model, inputs, settings))


NODES = [InstantID]
