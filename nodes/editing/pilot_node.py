"""PILOT: a hole in a picture painted by any checkpoint."""

from comfy_api.latest import io

from .. import schema
from ..widgets import seed_input
from .pilot import attach_pilot
from .pilot_series import PilotSettings


def _number(name, default, most, step, tooltip):
    return io.Float.Input(name, default=default, min=0.0, max=most, step=step, tooltip=tooltip, **schema.ADVANCED)


class PILOT(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationPILOT",
            display_name="PILOT Inpainting",
            category="personalization/editing",
            description="Paints a hole in a picture with any SD1.5, SD2.x or SDXL checkpoint, no inpainting model "
            "needed: LoRAs, references and image prompts keep working. Costs two to four times a plain run.",
            search_aliases=["inpaint", "inpainting", "latent optimization", "replace object"],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint, with any LoRAs and other patches."),
                io.Clip.Input("clip", tooltip="The checkpoint's CLIP; it says where the prompt's words stand."),
                io.Vae.Input("vae", tooltip="The checkpoint's VAE; it encodes the picture."),
                io.Image.Input("image", tooltip="The picture."),
                io.Mask.Input("mask", tooltip="White on the hole to repaint."),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    tooltip="The text of the positive prompt: what the hole should show. Its words are pulled into "
                    "the hole; empty: they are not.",
                ),
                io.Int.Input(
                    "operations",
                    default=10,
                    min=0,
                    max=100,
                    tooltip="Gradient steps of each series: how well the hole fits its surroundings, and what it "
                    "costs. 5 to 10.",
                ),
                io.Int.Input(
                    "interval",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip="Steps between two series; 0: a tenth of the steps, so about ten series.",
                ),
                io.Float.Input(
                    "gamma",
                    default=0.8,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Share of sampling with series; after it the noised picture is blended around the hole. 1: "
                    "no blending.",
                ),
                _number("coef", 150.0, 10000.0, 1.0, "How strongly words are pulled into the hole; 0: not at all."),
                _number("lr", 0.025, 1.0, 0.001, "Length of a gradient step. Too high: noise."),
                _number("lr_first", 0.007, 1.0, 0.001, "Length of a gradient step at the first step of sampling."),
                _number("momentum", 0.7, 1.0, 0.01, "Share of each move that the next one keeps."),
                seed_input(
                    "seed",
                    "Seed of the noise that is blended around the hole, independent of the sampler's.",
                    **schema.ADVANCED,
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The model with PILOT. The incoming model is not changed."),
                io.Latent.Output(tooltip="An empty latent of the picture's size, to begin with at denoise 1."),
            ],
        )

    @classmethod
    @schema.within_limits()
    def execute(
        cls,
        model,
        clip,
        vae,
        image,
        mask,
        prompt,
        operations,
        interval,
        gamma,
        coef,
        lr,
        lr_first,
        momentum,
        seed,
    ) -> io.NodeOutput:
        settings = PilotSettings(operations, interval, gamma, coef, lr, lr_first, momentum, seed)
        return io.NodeOutput(*attach_pilot(model, clip, vae, image, mask, prompt, settings))


NODES = [PILOT]
