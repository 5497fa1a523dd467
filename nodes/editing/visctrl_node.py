"""VisCtrl: another subject in one's place and pose."""

from comfy_api.latest import io

from .. import schema
from ..widgets import whole
from .visctrl import checked_pass, edited


def _steps(name, default, tooltip, **more):
    return whole(name, default, 2, 1000, tooltip, **more)


def _cfg(name, default, tooltip, **more):
    return io.Float.Input(name, default=default, min=0.0, max=100.0, step=0.1, tooltip=tooltip, **more)


def _start(name, default, tooltip, **more):
    return whole(name, default, 0, 999, tooltip, **more)


class VisCtrlNode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationVisCtrl",
            display_name="VisCtrl",
            category="personalization/editing",
            description="Puts the subject of a reference picture into the place and pose of another one, without "
            "training. It samples by itself, in few steps, and draws no noise. For SD1.5, SD2.x and SDXL.",
            search_aliases=["replace subject", "swap object", "edit", "inversion"],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint, with any LoRAs and other patches."),
                io.Vae.Input("vae", tooltip="The checkpoint's VAE."),
                io.Conditioning.Input(
                    "positive", tooltip="A short prompt for the picture as it is, such as a photo of a dog."
                ),
                io.Conditioning.Input(
                    "reference_positive", tooltip="The same for the reference picture, such as a photo of a cat."
                ),
                io.Conditioning.Input(
                    "negative", tooltip="An empty prompt, as published; it acts on the way to noise and back alike."
                ),
                io.Image.Input("image", tooltip="The picture with the subject to replace, from Crop Subject."),
                io.Image.Input(
                    "reference_image",
                    tooltip="The new subject, from a Crop Subject of its own; one for all pictures, or one for each.",
                ),
                io.Int.Input(
                    "iterations",
                    default=2,
                    min=1,
                    max=20,
                    tooltip="How often the result is edited: each pass brings it closer to the reference.",
                ),
                _steps("steps", 10, "Steps of the first pass, there and back."),
                _cfg("cfg", 6.0, "CFG of the first pass, on the way to noise and back. Up to 1: the prompts alone."),
                _start(
                    "start_step",
                    2,
                    "The first step that sees the reference; earlier: more of its shape, later: more of the old pose.",
                ),
                _start(
                    "start_block",
                    1,
                    "The first self-attention that sees the reference, in order of execution (SD1.5 has 0 to 15, SDXL "
                    "0 to 69).",
                ),
                _steps("later_steps", 5, "Steps of each further pass.", **schema.ADVANCED),
                _cfg("later_cfg", 4.0, "CFG of each further pass.", **schema.ADVANCED),
                _start("later_start", 1, "start_step of each further pass.", **schema.ADVANCED),
            ],
            outputs=[io.Image.Output(tooltip="The picture with the new subject, for Paste Subject.")],
        )

    @classmethod
    @schema.within_limits()
    def execute(
        cls,
        model,
        vae,
        positive,
        reference_positive,
        negative,
        image,
        reference_image,
        iterations,
        steps,
        cfg,
        start_step,
        start_block,
        later_steps,
        later_cfg,
        later_start,
    ) -> io.NodeOutput:
        first = checked_pass(steps, cfg, start_step, ("steps", "cfg", "start_step"))
        later = checked_pass(later_steps, later_cfg, later_start, ("later_steps", "later_cfg", "later_start"))
        texts = positive, reference_positive, negative
        passes = [first, *[later] * (iterations - 1)]
        return io.NodeOutput(edited(model, vae, texts, image, reference_image, passes, start_block))


NODES = [VisCtrlNode]
