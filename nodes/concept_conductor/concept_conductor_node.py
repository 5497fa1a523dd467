"""Concept Conductor: several LoRA subjects in one picture, each in its place, in one batched pass."""

from comfy_api.latest import io

from .. import schema
from ..inversion.layout_picture import layout_of
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
            description="Several LoRA subjects in one picture, each in its place and without mixing: all of them run "
            "beside the picture in one batch, and what they draw is taken where their masks are. Works on SD1.5, SD2.x "
            "and SDXL.",
            search_aliases=["multi LoRA", "regional LoRA", "LoRA characters", "ED-LoRA", "Mix-of-Show"],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint without the subjects' LoRAs; style LoRAs as you like."),
                _part(
                    "guidance_weight",
                    10.0,
                    "How strongly the layout picture pulls in the first steps. 10 as published for 200 steps; with few "
                    "steps more. Too much copies its texture. 0: off.",
                    1000.0,
                    0.1,
                ),
                _part(
                    "guidance_end",
                    0.30,
                    "The layout picture pulls in the steps up to this part of the run. Longer keeps its shapes, too "
                    "short lets subjects leave their masks.",
                ),
                io.Int.Input(
                    "guidance_interval",
                    default=1,
                    min=1,
                    max=100,
                    tooltip="It pulls in every step (1), every second one (2), and so on: less work, less hold.",
                    **schema.ADVANCED,
                ),
                _part(
                    "custom_factor",
                    1.0,
                    "The subjects' share in that pull; 0 leaves it to the main prompt alone and costs less.",
                    10.0,
                    0.05,
                    **schema.ADVANCED,
                ),
                io.Combo.Input(
                    "gradient_space",
                    options=list(SPACES),
                    default="vp",
                    tooltip="What guidance_weight is measured in. vp: equal pull at all noise levels. sigma: weak at "
                    "first, as published for SDXL with Euler; take a weight of 40 or more.",
                    **schema.ADVANCED,
                ),
                _part("refine_start", 0.25, "From this part of the run on the masks follow the shapes that show."),
                _part("refine_end", 0.40, "Until here they follow them. Below refine_start: they never do."),
                _part(
                    "refine_interval",
                    0.025,
                    "How often, as a part of the run; at least one step lies between.",
                    step=0.005,
                    **schema.ADVANCED,
                ),
                _part(
                    "iou_threshold",
                    0.0,
                    "How much of a shape and its mask must agree for the mask to take that shape. 0: the best one "
                    "always; 0.7 is careful.",
                ),
                io.Int.Input(
                    "kmeans_restarts",
                    default=100,
                    min=1,
                    max=1000,
                    tooltip="Tries when looking for shapes: 100 as published for SD1.5, 25 for SDXL.",
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
                    tooltip="Only the subjects follow the layout picture; the background is free. White boxes will do "
                    "as layout picture then.",
                ),
                io.Int.Input(
                    "inversion_steps",
                    default=0,
                    min=0,
                    max=999,
                    tooltip="Steps in which the layout picture is brought to noise, once per picture and prompt. 0: "
                    "those of the sampler; 999 as published.",
                    **schema.ADVANCED,
                ),
                Concepts.Input("concepts", optional=True, tooltip="From Add Concept; chain several."),
                io.Image.Input(
                    "layout_image",
                    optional=True,
                    tooltip="A picture whose layout the result takes: who stands where. Its edges are cropped to the "
                    "result's aspect. Without it only the masks decide.",
                ),
                io.Conditioning.Input(
                    "layout_positive",
                    optional=True,
                    tooltip="What the layout picture shows, from the checkpoint's own CLIP.",
                ),
                io.Vae.Input("vae", optional=True, tooltip="The checkpoint's VAE; it encodes the layout picture."),
                io.Combo.Input(
                    "unmatched",
                    options=list(UNMATCHED),
                    default="rectangle",
                    optional=True,
                    tooltip="What a mask becomes where no shape reaches iou_threshold. rectangle: the box around it, "
                    "as published. keep: what it was.",
                    **schema.ADVANCED,
                ),
                io.Boolean.Input(
                    "close_seams",
                    default=False,
                    optional=True,
                    tooltip="Masks that touch leave no gap between them on coarse layers; a gap shows the main prompt.",
                    **schema.ADVANCED,
                ),
                io.Int.Input(
                    "cache_mb",
                    default=1024,
                    min=0,
                    max=1 << 20,
                    optional=True,
                    tooltip="Room (MiB) for the inverted layout picture on disk (user/personalization) and for what is "
                    "read from it in memory, so that further pictures need not make it again. 0: keep nothing.",
                    **schema.ADVANCED,
                ),
            ],
            outputs=[io.Model.Output(tooltip="The checkpoint that draws all subjects; sample it as any other.")],
        )

    @classmethod
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
