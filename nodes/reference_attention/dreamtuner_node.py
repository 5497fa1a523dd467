"""DreamTuner: one subject from one picture, softly, at every self-attention."""

from comfy_api.latest import io

from .. import schema
from ..host.choices import check_listed
from ..host.when import Window
from ..widgets import window_inputs
from .dreamtuner import attach_dreamtuner
from .reference_settings import ReferenceSettings
from .reference_widgets import DRAWN, noise_inputs, text_input


class DreamTuner(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationDreamTuner",
            display_name="DreamTuner Self-Subject Attention",
            category="personalization/reference",
            description="Gives the image the subject of a reference picture in all its details, without training: "
            "softer than Multi-Reference Self-Attention, at every self-attention and on both sides of guidance. Put "
            "Reference Guidance behind it for more. Works on SD1.5, SD2.x and SDXL.",
            search_aliases=["DreamTuner", "self-subject attention", "subject", "one picture"],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint, with any LoRAs and other patches."),
                io.Clip.Input("clip", tooltip="The checkpoint's CLIP; it reads the references' prompts."),
                io.Vae.Input("vae", tooltip="The checkpoint's VAE; it encodes the references' pictures."),
                io.Float.Input(
                    "omega",
                    default=3.0,
                    min=0.0,
                    max=20.0,
                    step=0.1,
                    tooltip="How many times a token of the subject counts: 3 for photographs, 2.5 for drawings; 1 is "
                    "no emphasis, 10 hurts the picture, 0 turns the node off.",
                ),
                text_input(
                    "What the references read beside your prompt: own, as in the paper, or target, as in the public "
                    "code: your prompt itself."
                ),
                *window_inputs(
                    "Start later for a freer layout.",
                    "End earlier for less likeness in details, and less work.",
                ),
                *noise_inputs(),
            ],
            outputs=[io.Model.Output(tooltip="The checkpoint with the references in its self-attention.")],
        )

    @classmethod
    @schema.within_limits()
    def execute(
        cls,
        model,
        clip,
        vae,
        omega,
        reference_prompt,
        start_percent,
        end_percent,
        reference_noise,
        reference_seed,
        cache_mb,
        references=(),
    ) -> io.NodeOutput:
        check_listed("reference_noise", reference_noise, DRAWN)
        settings = ReferenceSettings(
            style_fidelity=0.0,
            window=Window(start_percent, end_percent),
            noise=reference_noise,
            seed=reference_seed,
            cache_mb=cache_mb,
            text=reference_prompt,
        )
        return io.NodeOutput(attach_dreamtuner(model, clip, vae, references or (), settings, omega))


NODES = [DreamTuner]
