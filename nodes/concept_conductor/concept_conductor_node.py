"""Concept Conductor: several LoRA subjects in one picture, each in its place, in one batched pass."""

from comfy_api.latest import io

from .. import schema
from ..inversion.layout_picture import layout_of
from ..widgets import cache_input
from .concept_conductor import attach_conductor
from .concepts_wire import Concepts
from .conductor_settings import SPACES, UNMATCHED, ConductorSettings


def _part(name, default, tooltip, maximum=1.0, step=0.01, **more):
    return io.Float.Input(name, default=default, min=0.0, max=maximum, step=step, tooltip=tooltip, **more)


class ConceptConductor(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationConceptConductor",
            display_name="Concept Conductor",
            category="personalization/concept_conductor",
            description="Several LoRA subjects in one picture, each in its place and without mixing: they run in one "
            "batch with the picture, and each is blended in where its mask is. Works on SD1.5, SD2.x and "
            "SDXL.",
            search_aliases=["multi LoRA", "regional LoRA", "LoRA characters", "ED-LoRA", "Mix-of-Show"],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint without the subjects' LoRAs; style LoRAs are fine."),
                _part(
                    "guidance_weight",
                    10.0,
                    "How strongly the layout picture pulls in the first steps. 10 as published; no pull is larger "
                    "than a step of the sampler. Too much copies its texture. 0: off.",
                    1000.0,
                    0.1,
                ),
                _part(
                    "guidance_end",
                    0.30,
                    "When layout guidance ends, as a fraction of the run. Later keeps the shapes of the layout "
                    "picture; too early lets subjects leave their masks.",
                ),
                io.Int.Input(
                    "guidance_interval",
                    default=1,
                    min=1,
                    max=100,
                    tooltip="Guide at every step (1), every second step (2), and so on: less work, weaker hold.",
                    **schema.ADVANCED,
                ),
                _part(
                    "custom_factor",
                    1.0,
                    "Contribution of the subjects to layout guidance; 0 uses the main prompt only and is faster.",
                    10.0,
                    0.05,
                    **schema.ADVANCED,
                ),
                io.Combo.Input(
                    "gradient_space",
                    options=list(SPACES),
                    default="vp",
                    tooltip="What guidance_weight is measured in. vp: the same pull at all noise levels. sigma: weak "
                    "at first, as published for SDXL with Euler; use a weight of 40 or more.",
                    **schema.ADVANCED,
                ),
                _part("refine_start", 0.25, "When masks start adapting to emerging shapes, as a fraction of the run."),
                _part("refine_end", 0.40, "When masks stop adapting. Below refine_start: they never adapt."),
                _part(
                    "refine_interval",
                    0.025,
                    "Interval at which masks adapt, as a fraction of the steps; at least one step.",
                    step=0.005,
                    **schema.ADVANCED,
                ),
                _part(
                    "iou_threshold",
                    0.0,
                    "How well a shape must overlap a mask (IoU) to replace it. 0: the best always does; 0.7: cautious.",
                ),
                io.Int.Input(
                    "kmeans_restarts",
                    default=100,
                    min=1,
                    max=1000,
                    tooltip="Attempts at finding shapes: 100 as published for SD1.5, 25 for SDXL.",
                    **schema.ADVANCED,
                ),
                io.Boolean.Input(
                    "rect_mask",
                    default=False,
                    tooltip="Masks become their bounding rectangles instead of following shapes.",
                    **schema.ADVANCED,
                ),
                io.Boolean.Input(
                    "use_loss_mask",
                    default=False,
                    tooltip="Only the subjects follow the layout picture; the background is free. A picture of white "
                    "boxes is then enough.",
                ),
                io.Int.Input(
                    "inversion_steps",
                    default=0,
                    min=0,
                    max=999,
                    tooltip="Steps for inverting the layout picture to noise, once per picture and prompt. 0: the "
                    "sampler's own; 999 as published.",
                    **schema.ADVANCED,
                ),
                Concepts.Input("concepts", optional=True, tooltip="From Add Concept; chain several."),
                io.Image.Input(
                    "layout_image",
                    optional=True,
                    tooltip="A picture whose layout the result takes over: who is where. Its edges are cropped to the "
                    "result's aspect ratio. Without it, the masks alone decide.",
                ),
                io.Conditioning.Input(
                    "layout_positive",
                    optional=True,
                    tooltip="A prompt that describes the layout picture, from the checkpoint's own CLIP.",
                ),
                io.Vae.Input("vae", optional=True, tooltip="The checkpoint's VAE; it encodes the layout picture."),
                io.Combo.Input(
                    "unmatched",
                    options=list(UNMATCHED),
                    default="rectangle",
                    optional=True,
                    tooltip="What a mask becomes if no shape reaches iou_threshold. rectangle: its bounding box, as "
                    "published. keep: no change.",
                    **schema.ADVANCED,
                ),
                io.Boolean.Input(
                    "close_seams",
                    default=False,
                    optional=True,
                    tooltip="Closes the gaps that touching masks leave on coarse layers; a gap shows the main prompt.",
                    **schema.ADVANCED,
                ),
                cache_input(
                    "Space (MiB) for inverted layout pictures on disk (user/personalization) and for the data "
                    "read from them in RAM, so that further pictures can reuse them. 0: keep nothing.",
                    optional=True,
                    **schema.ADVANCED,
                ),
            ],
            outputs=[io.Model.Output(tooltip="The checkpoint that draws all subjects; sample it like any other.")],
        )

    @classmethod
    @schema.within_limits()
    def execute(
        cls,
        model,
        guidance_weight,
        guidance_end,
        guidance_interval,
        custom_factor,
        gradient_space,
        refine_start,
        refine_end,
        refine_interval,
        iou_threshold,
        kmeans_restarts,
        rect_mask,
        use_loss_mask,
        inversion_steps,
        concepts=(),
        layout_image=None,
        layout_positive=None,
        vae=None,
        unmatched="rectangle",
        close_seams=False,
        cache_mb=1024,
    ) -> io.NodeOutput:
        settings = ConductorSettings(
            guidance_weight=guidance_weight,
            guidance_end=guidance_end,
            guidance_interval=guidance_interval,
            custom_factor=custom_factor,
            gradient_space=gradient_space,
            refine_start=refine_start,
            refine_end=refine_end,
            refine_interval=refine_interval,
            iou_threshold=iou_threshold,
            kmeans_restarts=kmeans_restarts,
            rect_mask=rect_mask,
            use_loss_mask=use_loss_mask,
            unmatched=unmatched,
            close_seams=close_seams,
            cache_bytes=cache_mb << 20,
        )
        layout = layout_of(layout_image, layout_positive, vae, inversion_steps, settings.cache_bytes)
        return io.NodeOutput(attach_conductor(model, concepts or (), settings, layout))


NODES = [ConceptConductor]
