"""MIP-Adapter: several image prompts, each bound to its word; and a picture of who took which place."""

from comfy_api.latest import io

from .. import schema
from ..host.when import Window
from ..image_adapters.image_adapter_wire import ImageAdapterSocket
from ..references.references_wire import References
from ..widgets import window_inputs
from .image_technique import maps_over
from .image_words import PHRASE_SOURCES
from .merge_widgets import merge_inputs
from .mip_adapter import MIPSettings, attach_mip_adapter


class MIPAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationMIPAdapter",
            display_name="MIP-Adapter",
            category="personalization/mip_adapter",
            description="Gives each object of the prompt the look of its own picture: several image prompts that do "
            "not mix, with MIP-Adapter or any IP-Adapter file. Works on SD1.5, SD2.x and SDXL.",
            search_aliases=["IP-Adapter", "IPAdapter", "image prompt", "multi reference", "subject"],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint, with any LoRAs and other patches."),
                ImageAdapterSocket.Input(
                    "adapter", tooltip="From Load Image Adapter; made for the checkpoint's family."
                ),
                io.Clip.Input("clip", tooltip="The checkpoint's CLIP; it reads the references' words."),
                io.ClipVision.Input(
                    "clip_vision",
                    tooltip="From Load CLIP Vision: ViT-H for most files, ViT-bigG for MIP-Adapter's base file.",
                ),
                io.Float.Input(
                    "scale",
                    default=0.75,
                    min=0.0,
                    max=5.0,
                    step=0.05,
                    tooltip="Likeness versus freedom of the prompt: 0 is off; 0.75 suits base files, 0.65 plus files; "
                    "above 1 the pose and background of the pictures are copied too.",
                ),
                *merge_inputs(
                    "weighted: each place mixes the pictures by how much it belongs to each word "
                    "(MIP-Adapter). joint: all pictures act everywhere, as in a plain IP-Adapter.",
                    "How sharply places are assigned: 1 as published, 2 to 4 to keep similar objects apart, 0 "
                    "mixes equally. Only for merge weighted.",
                ),
                io.Combo.Input(
                    "phrase_source",
                    options=list(PHRASE_SOURCES),
                    default=PHRASE_SOURCES[0],
                    tooltip="How the words are read. standalone: each by itself, as published. prompt: as part of the "
                    "prompt given below.",
                    **schema.ADVANCED,
                ),
                io.Boolean.Input(
                    "text_gate",
                    default=True,
                    tooltip="Lets the text decide where the pictures act, as MIP-Adapter files were trained to. Other "
                    "files have no gate. Off: the same strength everywhere.",
                    **schema.ADVANCED,
                ),
                *window_inputs(
                    "Start later for a freer layout.",
                    "End earlier to let the checkpoint finish the details by itself.",
                ),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    optional=True,
                    placeholder="the positive prompt, for phrase_source prompt",
                    tooltip="The text of your positive prompt, for phrase_source prompt. Otherwise it is only used to "
                    "warn about words that are not in it.",
                ),
                References.Input("references", optional=True, tooltip="From Add Reference; chain one per object."),
            ],
            outputs=[io.Model.Output(tooltip="The checkpoint with the pictures in its cross-attention.")],
        )

    @classmethod
    @schema.within_limits()
    def execute(
        cls,
        model,
        adapter,
        clip,
        clip_vision,
        scale,
        merge,
        merge_power,
        phrase_source,
        text_gate,
        start_percent,
        end_percent,
        prompt="",
        references=(),
    ) -> io.NodeOutput:
        settings = MIPSettings(
            scale=scale,
            merge=merge,
            merge_power=merge_power,
            phrase_source=phrase_source,
            text_gate=text_gate,
            window=Window(start_percent, end_percent),
            prompt=prompt or "",
        )
        return io.NodeOutput(attach_mip_adapter(model, adapter, clip, clip_vision, references or (), settings))


class MIPMaps(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationMIPMaps",
            display_name="MIP-Adapter Maps",
            category="personalization/mip_adapter",
            description="Shows which reference acted where: one heat map per reference, its share of each place, "
            "averaged over all layers and steps of the run that made the samples.",
            search_aliases=["heat map", "attention map", "merge weights"],
            inputs=[
                io.Model.Input("model", tooltip="The MODEL from MIP-Adapter that was sampled."),
                io.Latent.Input("samples", tooltip="The LATENT made with that MODEL, straight from the sampler."),
                io.Image.Input("images", optional=True, tooltip="The decoded samples, to draw the maps over."),
            ],
            outputs=[
                io.Image.Output(
                    display_name="maps", tooltip="For each image, one panel per reference; bright is a large share."
                )
            ],
        )

    @classmethod
    def execute(cls, model, samples, images=None) -> io.NodeOutput:
        return io.NodeOutput(maps_over(model, samples, images))


NODES = [MIPAdapter, MIPMaps]
