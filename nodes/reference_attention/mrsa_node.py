"""Multi-Reference Self-Attention: the image's tokens also look at the tokens of reference pictures."""

from comfy_api.latest import io

from .. import schema
from ..host.blocks import CHOICES
from ..host.when import Window
from ..widgets import window_inputs
from .mrsa import NOISES
from .mrsa_settings import MRSASettings, attach_mrsa
from .reference_widgets import noise_inputs, text_input


class MultiReferenceSelfAttention(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationMRSA",
            display_name="Multi-Reference Self-Attention",
            category="personalization/mrsa",
            description="Paints the subjects of the references into the image, several at once, without training "
            "(FreeCustom). Works on SD1.5, SD2.x and SDXL.",
            search_aliases=["FreeCustom", "MRSA", "reference only", "subject", "multi reference"],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint, with any LoRAs and other patches."),
                io.Clip.Input("clip", tooltip="The checkpoint's CLIP; it reads the references' prompts."),
                io.Vae.Input("vae", tooltip="The checkpoint's VAE; it encodes the references' pictures."),
                io.Float.Input(
                    "weight",
                    default=3.0,
                    min=-20.0,
                    max=20.0,
                    step=0.1,
                    tooltip="How strongly the image attends to the references (added to the attention logits): 1 "
                    "soft, 3 as published; above 4 copies the reference and breaks the layout; negative "
                    "values weaken references, down to nothing at -20; exactly 0 turns the node off.",
                ),
                io.Combo.Input(
                    "blocks",
                    options=list(CHOICES),
                    default="published",
                    tooltip="Where in the UNet. published: the last two levels. fine: the last level only, for colour "
                    "and texture. all up: the whole upward path, more likeness. all: the downward path too, "
                    "which copies the pose and causes artifacts. custom: by index.",
                ),
                io.String.Input(
                    "custom_blocks",
                    default="",
                    tooltip='For blocks "custom": indices of self-attentions in order of execution, such as 10-15 '
                    "(SD1.5 has 0 to 15, SDXL 0 to 69).",
                    **schema.ADVANCED,
                ),
                io.Float.Input(
                    "style_fidelity",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="1: only the positive pass uses the references, for most likeness at the lowest cost. 0: "
                    "both passes do, which is softer.",
                ),
                *window_inputs(
                    "Start later for a freer layout.",
                    "End earlier for less likeness in details, and less work.",
                ),
                *noise_inputs(
                    NOISES,
                    "; inverted: the picture's own path to noise, which costs its steps once",
                    "; and as much on disk for inverted ones",
                ),
                text_input(
                    "What the references read beside your prompt: own (as published), or target: your prompt itself.",
                    optional=True,
                    **schema.ADVANCED,
                ),
                io.Model.Input(
                    "reference_model",
                    optional=True,
                    tooltip="A second UNet of the same shape that was trained to read references (BootPIG). weight is "
                    "then not used, and where references differ, each token follows the one that changes it most.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The checkpoint with the references in its self-attention.")],
        )

    @classmethod
    @schema.within_limits("weight", "style_fidelity")
    def execute(
        cls,
        model,
        clip,
        vae,
        weight,
        blocks,
        custom_blocks,
        style_fidelity,
        start_percent,
        end_percent,
        reference_noise,
        reference_seed,
        cache_mb,
        references=(),
        reference_prompt="own",
        reference_model=None,
    ) -> io.NodeOutput:
        settings = MRSASettings(
            weight=weight,
            blocks=blocks,
            custom_blocks=custom_blocks,
            style_fidelity=style_fidelity,
            window=Window(start_percent, end_percent),
            noise=reference_noise,
            seed=reference_seed,
            cache_mb=cache_mb,
            text=reference_prompt,
        )
        return io.NodeOutput(attach_mrsa(model, clip, vae, references or (), settings, reference_model))


NODES = [MultiReferenceSelfAttention]
