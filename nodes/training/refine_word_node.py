"""Refine Word: a learned word that takes over a prompt, made to leave the rest of it alone."""

from comfy_api.latest import io

from .. import schema
from ..widgets import whole
from .refine_word import refine_word
from .train_optimizer import OptimizerSettings


class RefineWord(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationTrainRefineWord",
            display_name="Refine Word",
            category="personalization/training",
            description="Moves a learned word so that the rest of one prompt reads as it does with the class word "
            "(CoRe): for a subject that makes the prompt's other words vanish. Takes seconds, without pictures or a "
            "model.",
            search_aliases=["CoRe", "textual inversion", "prompt following", "overfitting", "embedding"],
            inputs=[
                io.Clip.Input("clip", tooltip="A CLIP that knows the word: from Train Concept or Load Concept Words."),
                io.String.Input("word", default="<my_cat>", tooltip="The word as the CLIP knows it."),
                io.String.Input(
                    "class_word",
                    default="cat",
                    tooltip="What kind of thing it is, in as many tokens as the word has vectors.",
                ),
                io.String.Input(
                    "prompt",
                    default="{} in the desert",
                    multiline=True,
                    tooltip="The prompt that the word is refined for; {} or the word stands where it belongs.",
                ),
                whole("steps", 30, 1, 10000, "How often the word is moved."),
                io.Float.Input(
                    "learning_rate", default=5e-3, min=1e-7, max=1.0, step=1e-4, round=1e-7,
                    tooltip="How far each step moves it.",
                ),
                io.Float.Input(
                    "pull", default=1e-2, min=0.0, max=10.0, step=1e-3, round=1e-6,
                    tooltip="How strongly it is held to where it stood: higher keeps more of the subject.",
                ),
            ],
            outputs=[
                io.Clip.Output(display_name="clip", tooltip="The same CLIP with the word refined."),
                io.String.Output(display_name="report", tooltip="How far the rest of the prompt is off now, and was "
                "before."),
            ],
        )  # fmt: skip

    @classmethod
    @schema.within_limits()
    def execute(cls, clip, word, class_word, prompt, steps, learning_rate, pull) -> io.NodeOutput:
        settings = OptimizerSettings(lr_words=learning_rate, steps=steps)
        return io.NodeOutput(*refine_word(clip, word, class_word, prompt, settings, pull))


NODES = [RefineWord]
