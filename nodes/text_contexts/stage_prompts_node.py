"""Stage Prompts: another text for each tenth of sampling."""

from comfy_api.latest import io

from .. import schema
from .readings import WORD_STAGES
from .stage_prompts import stage_prompts


class StagePrompts(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        def stage(number):
            when = {1: ", where sampling starts", WORD_STAGES: ", where it ends"}.get(number, "")
            before = "the prompt above" if number == 1 else "the text of the stage before"
            return io.String.Input(
                f"stage_{number}",
                default="",
                tooltip=f"Text of tenth {number}{when}. Empty: {before}; {{}} stands for the prompt; - is no text.",
            )

        return schema.Schema(
            node_id="PersonalizationStagePrompts",
            display_name="Stage Prompts",
            category="personalization/words",
            description="Gives each tenth of sampling a text of its own: early stages decide the layout, middle ones "
            "what there is, late ones material and style. Works with any model and sampler.",
            search_aliases=["ProSpect", "prompt schedule", "prompt editing", "timestep prompts"],
            inputs=[
                io.Clip.Input("clip", tooltip="The text encoder; it may know words of Load Concept Words."),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    tooltip="The main prompt: the text of every stage that has none of its own.",
                ),
                *(stage(number) for number in range(1, WORD_STAGES + 1)),
            ],
            outputs=[
                io.Conditioning.Output(display_name="conditioning", tooltip="For the sampler: each text in its stages.")
            ],
        )

    @classmethod
    def execute(
        cls, clip, prompt, stage_1, stage_2, stage_3, stage_4, stage_5, stage_6, stage_7, stage_8, stage_9, stage_10
    ) -> io.NodeOutput:
        texts = [stage_1, stage_2, stage_3, stage_4, stage_5, stage_6, stage_7, stage_8, stage_9, stage_10]
        return io.NodeOutput(stage_prompts(clip, prompt, texts))


NODES = [StagePrompts]
