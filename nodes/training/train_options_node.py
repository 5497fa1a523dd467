"""Training Options: what a training does in another way than its method."""

from comfy_api.latest import io

from .. import schema
from ..widgets import whole
from .train_options_wire import AS_METHOD, OPTION_CHOICES, TrainingOptionsSocket, options_of


def _rate(name, tooltip):
    return io.Float.Input(name, default=0.0, min=0.0, max=1.0, step=1e-6, round=1e-8, tooltip=tooltip)


def _weight(name, most, step, tooltip):
    return io.Float.Input(name, default=-1.0, min=-1.0, max=most, step=step, round=step / 10, tooltip=tooltip)


def _choice(name, tooltip):
    return io.Combo.Input(name, options=[AS_METHOD, *OPTION_CHOICES[name]], default=AS_METHOD, tooltip=tooltip)


class TrainingOptionsNode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationTrainOptions",
            display_name="Training Options",
            category="personalization/training",
            description="Overrides single settings of Train Concept's method. The choice method, -1, an empty text, "
            "and 0 where the tooltip says so keep the method's default.",
            search_aliases=["learning rate", "training settings", "lora options"],
            inputs=[
                _rate("lr_words", "Learning rate of words, for a whole batch; 0: the method's default."),
                _rate("lr_unet", "Learning rate of the LoRA in the UNet; 0: the method's default."),
                _rate("lr_text", "Learning rate of the LoRA in the text encoder; 0: the method's default."),
                whole("words_first", -1, -1, 1000000, "Steps in which only the words learn; -1: the method's default."),
                _rate("lr_words_first", "Learning rate of the words in those steps; 0: the method's default."),
                _choice("schedule", "How learning rates fall over the training."),
                whole("batch_size", 0, 0, 256, "Pictures per step; 0: the method's default. Fewer need less memory."),
                whole("accumulate", 1, 1, 256, "Batches per step: as a larger batch, in more time instead of memory."),
                whole(
                    "rank", 0, 0, 1024,
                    "Rank of the LoRA; 0: the method's default. Higher ranks hold more and are larger.",
                ),
                _choice("targets", "Which layers of the UNet the LoRA changes."),
                _choice("start", "Where the rows of a word begin."),
                whole("vectors", 0, 0, 16, "Tokens that a word takes in a prompt; 0: the method's default."),
                _choice("layers", "Whether a word differs by attention layer."),
                _weight(
                    "pull", 10.0, 1e-5,
                    "How strongly words are held to where they began; -1: the method's default.",
                ),
                _weight(
                    "norm_limit", 100.0, 0.01,
                    "Words stop learning at this norm; 0: never, -1: the method's default.",
                ),
                io.Boolean.Input("keep_norm", default=False, tooltip="Words keep the length that they began with."),
                _choice("mask_loss", "What the loss looks at: subject or picture."),
                _weight("attention_weight", 10.0, 0.001, "How strongly words keep to masks; -1: the method's default."),
                io.Boolean.Input(
                    "full_identity", default=False, tooltip="ED-LoRA: the second word fills its mask."
                ),
                _weight(
                    "context", 10.0, 1e-4,
                    "How strongly the rest of a prompt stays as it was; -1: the method's default.",
                ),
                io.String.Input(
                    "context_prompts", default="", multiline=True, tooltip="Prompts for context, a line each, with {}."
                ),
                _weight(
                    "degrade", 1.0, 0.05,
                    "Noise around the subject in the method parts; -1: the method's default.",
                ),
                _choice("balance", "Whether only the subject that lags behind learns."),
                _weight(
                    "noise_offset", 1.0, 0.001,
                    "How much brightness varies with the noise; -1: the method's default.",
                ),
                _choice("placement", "How pictures are put on the square that is learned."),
                whole("placements", 16, 1, 256, "Places per picture, each encoded once before the first step."),
                _choice("flip", "Whether half of the places are mirrored."),
                whole("t_min", 0, 0, 999, "The lowest timestep that is learned: 0 is almost no noise."),
                whole("t_max", 999, 0, 999, "The highest timestep that is learned: 999 is almost only noise."),
                io.Float.Input(
                    "clip_norm", default=1.0, min=0.0, max=1000.0, step=0.1, tooltip="Limit of the gradients; 0: none."
                ),
                io.Combo.Input(
                    "checkpoint", options=list(OPTION_CHOICES["checkpoint"]), default="auto",
                    tooltip="Computes parts again instead of keeping them: far less memory for 40 % more time.",
                ),
                whole("cache_mb", 1024, 16, 1048576, "Main memory for places of pictures, in MB."),
            ],
            outputs=[TrainingOptionsSocket.Output(display_name="options", tooltip="For Train Concept.")],
        )  # fmt: skip

    @classmethod
    @schema.within_limits()
    def execute(cls, **values) -> io.NodeOutput:
        return io.NodeOutput(options_of(values))


NODES = [TrainingOptionsNode]
