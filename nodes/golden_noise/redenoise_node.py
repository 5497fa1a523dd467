"""Re-denoise: a start noise that fits the prompt, from the model itself."""

from comfy_api.latest import io

from .. import schema
from .redenoised import Redenoised, RedenoiseSettings


class Redenoise(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationRedenoise",
            display_name="Re-denoise",
            category="personalization/npnet",
            description="Golden noise without a network file: the model takes one step with strong guidance and one "
            "step back with weak guidance. For SD1.5, SD2.x and SDXL at any size; costs about three UNet "
            "calls.",
            search_aliases=["golden noise", "initial noise", "inversion"],
            inputs=[
                io.Noise.Input("noise", tooltip="The plain noise, from Random Noise."),
                io.Model.Input("model", tooltip="The model that will be sampled, with all its patches."),
                io.Conditioning.Input("positive", tooltip="The prompt."),
                io.Conditioning.Input("negative", tooltip="The negative prompt."),
                io.Float.Input(
                    "guidance",
                    default=5.5,
                    min=0.0,
                    max=30.0,
                    step=0.1,
                    tooltip="CFG of the step forward: 5.5 for SDXL, 3.5 for turbo models, 7.5 for SD1.5.",
                ),
                io.Float.Input(
                    "inverse_guidance",
                    default=1.0,
                    min=0.0,
                    max=30.0,
                    step=0.1,
                    tooltip="CFG of the step back; its difference from guidance is what pulls towards the prompt.",
                ),
                io.Int.Input(
                    "steps",
                    default=50,
                    min=2,
                    max=1000,
                    tooltip="Step size as 1/steps of the schedule. 50 changes a little, 10 a lot. The steps of your "
                    "sampler do not matter here.",
                    **schema.ADVANCED,
                ),
                io.Int.Input(
                    "repeats",
                    default=1,
                    min=1,
                    max=20,
                    tooltip="How many times to go forward and back; each time costs three UNet calls.",
                    **schema.ADVANCED,
                ),
            ],
            outputs=[io.Noise.Output(tooltip="The golden noise, for SamplerCustomAdvanced.")],
        )

    @classmethod
    @schema.within_limits()
    def execute(cls, noise, model, positive, negative, guidance, inverse_guidance, steps, repeats) -> io.NodeOutput:
        settings = RedenoiseSettings(guidance, inverse_guidance, steps, repeats)
        return io.NodeOutput(Redenoised(noise, model, positive, negative, settings))


NODES = [Redenoise]
