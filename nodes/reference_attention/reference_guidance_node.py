"""Reference Guidance: makes references count that are too weak, or that the prompt drowns."""

from comfy_api.latest import io

from .. import schema
from ..widgets import seed_input
from .reference_guidance import INTERLEAVED, MODES, GuidanceSettings, attach_guidance


class ReferenceGuidanceNode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationReferenceGuidance",
            display_name="Reference Guidance",
            category="personalization/reference",
            description="Makes the references on this MODEL count more: it guides away from what the same prompt gives "
            "without them. For Multi-Reference Self-Attention, DreamTuner and Reference Only, before or behind them.",
            search_aliases=["DreamTuner", "BootPIG", "reference guidance", "subject strength"],
            inputs=[
                io.Model.Input("model", tooltip="The MODEL with the references on it."),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default=INTERLEAVED,
                    tooltip="interleaved: most steps are guided by the references, the others by the prompt, at no "
                    "further cost. three terms: every step by both; it predicts one more row.",
                ),
                io.Float.Input(
                    "reference_scale",
                    default=7.5,
                    min=0.0,
                    max=30.0,
                    step=0.1,
                    tooltip="How far to move away from the picture without references: 2 gentle, 5 for three terms, "
                    "7.5 as in DreamTuner's public code; 0 turns the node off.",
                ),
                io.Float.Input(
                    "share",
                    default=0.9,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="interleaved: the share of steps guided by the references. Lower it where the prompt is "
                    "forgotten; 0 turns the node off.",
                ),
                seed_input("seed", "interleaved: decides which steps are guided by the references."),
                io.Int.Input(
                    "time_shift",
                    default=1,
                    min=0,
                    max=100,
                    tooltip="interleaved: by how many of 1000 timesteps the references carry less noise than the image "
                    "where they guide, and more on the negative side.",
                    **schema.ADVANCED,
                ),
            ],
            outputs=[io.Model.Output(tooltip="The MODEL, guided by its references.")],
        )

    @classmethod
    @schema.within_limits()
    def execute(cls, model, mode, reference_scale, share, seed, time_shift) -> io.NodeOutput:
        settings = GuidanceSettings(mode, reference_scale, share, seed, time_shift)
        return io.NodeOutput(attach_guidance(model, settings))


NODES = [ReferenceGuidanceNode]
