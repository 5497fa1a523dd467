"""ResAdapter: any picture size, by a small change of the weights."""

from comfy_api.latest import io

from .. import schema
from .adapter_sets import check_choice, set_changed, set_choices
from .resadapter import NORMS, attach_resadapter
from .resolution import ASPECTS, NONE, empty_latent, sized
from .set_export import export_resadapter

_CATEGORY = "personalization/resadapter"


def adapter_set(*before, tooltip):
    return io.Combo.Input("adapter_set", options=set_choices(*before), tooltip=tooltip)


class ResAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationResAdapter",
            display_name="ResAdapter",
            category=_CATEGORY,
            description="Lets an SD1.5 checkpoint draw from 128 to 1024 pixels and an SDXL checkpoint from 256 to "
            "1536, at many aspect ratios, without changing the style and at no extra time.",
            search_aliases=["ResAdapterLoader", "resolution adapter", "any resolution", "high resolution"],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint; other LoRAs and patches go after this node."),
                adapter_set(tooltip="A set in models/resadapter: a folder with its two files, or one exported file."),
                io.Float.Input(
                    "alpha",
                    default=1.0,
                    min=0.0,
                    max=1.5,
                    step=0.05,
                    tooltip="Strength of the set's LoRA: 1 up to the native size; 0.3 to 0.7 above it, since too much "
                    "flattens the style; 0.5 to 0.7 with LCM or Lightning.",
                ),
                io.Combo.Input(
                    "norms",
                    options=list(NORMS),
                    default="auto",
                    tooltip="The set's norms, needed above the native size. auto: on, except for interpolation sets, "
                    "which are for small sizes.",
                    **schema.ADVANCED,
                ),
                io.Float.Input(
                    "norm_strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Blend of the checkpoint's own norms (0) and the set's (1, as published).",
                ),
                io.Boolean.Input(
                    "link_norms",
                    default=False,
                    tooltip="The norms follow alpha (from 0 to 1) instead of norm_strength, so that alpha 0 is the "
                    "plain checkpoint.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The checkpoint with the set in its weights."),
                io.String.Output(display_name="report", tooltip="What was applied, with notes."),
            ],
        )

    @classmethod
    def validate_inputs(cls, adapter_set):
        return check_choice(adapter_set)

    @classmethod
    def fingerprint_inputs(cls, adapter_set, **_):
        return set_changed(adapter_set)

    @classmethod
    @schema.within_limits()
    def execute(cls, model, adapter_set, alpha, norms, norm_strength, link_norms) -> io.NodeOutput:
        patched, report = attach_resadapter(
            model, adapter_set, alpha=alpha, norms=norms, norm_strength=norm_strength, link_norms=link_norms
        )
        return io.NodeOutput(patched, report)


class ResAdapterExport(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationResAdapterExport",
            display_name="Export ResAdapter",
            category=_CATEGORY,
            description="Writes a ResAdapter set as one LoRA file, norms included, into the loras folder: any LoRA "
            "loader of ComfyUI then applies it in full.",
            inputs=[
                adapter_set(tooltip="A set in models/resadapter."),
                io.String.Input(
                    "file_name",
                    default="resadapter",
                    tooltip="Name of the new file, without folders. An existing file with different contents is never "
                    "overwritten.",
                ),
                io.Model.Input("model", tooltip="A checkpoint of the set's family, to check it against."),
            ],
            outputs=[io.String.Output(display_name="path", tooltip="Where the file was written.")],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, adapter_set):
        return check_choice(adapter_set)

    @classmethod
    def fingerprint_inputs(cls, adapter_set, **_):
        return set_changed(adapter_set)

    @classmethod
    def execute(cls, adapter_set, file_name, model) -> io.NodeOutput:
        return io.NodeOutput(export_resadapter(model, adapter_set, file_name))


class Resolution(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        def side(name, tooltip):
            return io.Int.Input(name, default=1024, min=16, max=16384, step=8, tooltip=tooltip)

        return schema.Schema(
            node_id="PersonalizationResolution",
            display_name="ResAdapter Resolution",
            category=_CATEGORY,
            description="A size that suits the checkpoint's family, with an empty latent, the alpha for ResAdapter, "
            "and a warning outside the set's range.",
            search_aliases=["aspect ratio", "empty latent", "size", "megapixels"],
            inputs=[
                io.Model.Input("model", tooltip="The checkpoint; its family decides how sides are rounded."),
                adapter_set(
                    NONE, tooltip="The ResAdapter set in use, for its range of sizes; none: the plain checkpoint."
                ),
                io.Combo.Input(
                    "aspect",
                    options=list(ASPECTS),
                    default="1:1",
                    tooltip="Width to height. custom: custom_width and custom_height count instead of megapixels.",
                ),
                io.Float.Input(
                    "megapixels",
                    default=1.0,
                    min=0.01,
                    max=16.0,
                    step=0.01,
                    tooltip="Area of the picture: 1.0 is 1024 x 1024, 0.25 is 512 x 512.",
                ),
                side("custom_width", "For custom: the width in pixels, rounded to a multiple that suits the family."),
                side("custom_height", "For custom: the height in pixels, rounded to a multiple that suits the family."),
                io.Int.Input("batch_size", default=1, min=1, max=4096, tooltip="Number of pictures in the latent."),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="An empty latent of that size."),
                io.Int.Output(display_name="width", tooltip="Width in pixels."),
                io.Int.Output(display_name="height", tooltip="Height in pixels."),
                io.Float.Output(display_name="alpha", tooltip="The alpha to give to ResAdapter at that size."),
                io.String.Output(display_name="warning", tooltip="Warnings; empty if none."),
            ],
        )

    @classmethod
    def validate_inputs(cls, adapter_set):
        return True if adapter_set == NONE else check_choice(adapter_set)

    @classmethod
    def fingerprint_inputs(cls, adapter_set, **_):
        return set_changed(adapter_set)

    @classmethod
    @schema.within_limits("custom_width", "custom_height")
    def execute(cls, model, adapter_set, aspect, megapixels, custom_width, custom_height, batch_size) -> io.NodeOutput:
        # smaller sides are rounded up, and said
        schema.check_limits(cls, custom_width=max(16, custom_width), custom_height=max(16, custom_height))
        width, height, alpha, warning = sized(
            model, adapter_set, aspect=aspect, megapixels=megapixels, width=custom_width, height=custom_height
        )
        return io.NodeOutput(empty_latent(width, height, batch_size), width, height, alpha, warning)


NODES = [ResAdapter, ResAdapterExport, Resolution]
