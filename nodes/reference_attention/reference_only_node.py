"""Reference Only: the look and the subject of a whole picture, without masks and without words."""

from comfy_api.latest import io

from .. import schema
from ..host.choices import check_listed
from ..host.when import Window
from ..widgets import window_inputs
from .reference_only import attach_reference_only
from .reference_settings import ReferenceSettings
from .reference_widgets import DRAWN, noise_inputs


class ReferenceOnlyNode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationReferenceOnly",
            display_name="Reference Only with AdaIN",
            category="personalization/reference",
            description="Variations of a picture: its look and its subject, without a mask and without training. The "
            "image's tokens also attend to those of the picture, and its features take the picture's statistics "
            "(AdaIN). Works on SD1.5, SD2.x and SDXL.",
            search_aliases=["reference only", "reference_only", "AdaIN", "variations", "style"],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint, with any LoRAs and other patches."),
                io.Vae.Input("vae", tooltip="The checkpoint's VAE; it encodes the references' pictures."),
                io.Float.Input(
                    "attention",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Share of the self-attentions that read the references, the deepest first: 1 all, 0.5 the "
                    "deeper half, 0 none.",
                ),
                io.Float.Input(
                    "adain",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="At how many blocks the features take tone and contrast of the references, the deepest "
                    "first: 1 the deeper half, 2 all (flat), 0 none.",
                ),
                io.Float.Input(
                    "style_fidelity",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="0: the prompt counts more. 1: the references count more, at half the work. On SDXL stay "
                    "at 0.5 or below: above it, colour casts were seen.",
                ),
                *window_inputs(
                    "Start later for a freer layout.",
                    "End earlier for less likeness in details, and less work.",
                ),
                *noise_inputs(),
            ],
            outputs=[io.Model.Output(tooltip="The checkpoint with the references in attention and features.")],
        )

    @classmethod
    @schema.within_limits("style_fidelity")
    def execute(
        cls,
        model,
        vae,
        attention,
        adain,
        style_fidelity,
        start_percent,
        end_percent,
        reference_noise,
        reference_seed,
        cache_mb,
        references=(),
    ) -> io.NodeOutput:
        check_listed("reference_noise", reference_noise, DRAWN)
        settings = ReferenceSettings(
            style_fidelity=style_fidelity,
            window=Window(start_percent, end_percent),
            noise=reference_noise,
            seed=reference_seed,
            cache_mb=cache_mb,
            text="target",
        )
        return io.NodeOutput(attach_reference_only(model, vae, references or (), settings, attention, adain))


NODES = [ReferenceOnlyNode]
