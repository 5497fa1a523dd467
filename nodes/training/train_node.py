"""Train Concept: from pictures to a word, a LoRA or an ED-LoRA, inside the graph."""

from comfy_api.latest import io

from .. import schema
from ..widgets import seed_input, whole
from .methods import METHODS
from .pictures_wire import ClassPicturesSocket, TrainingPicturesSocket
from .train_options_wire import TrainingOptionsSocket
from .train_request import TrainingRequest
from .train_run import train_concept


class TrainConcept(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationTrain",
            display_name="Train Concept",
            category="personalization/training",
            description="Learns a subject from pictures: a word for any prompt, a LoRA, an ED-LoRA, or all things of "
            "one picture. Cancel keeps what was learned; the same settings resume it.",
            search_aliases=["train lora", "textual inversion", "dreambooth", "break-a-scene", "magictailor", "ed-lora"],
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="An SD1.5, SD2.x or SDXL checkpoint; it stays as it is."),
                io.Clip.Input("clip", tooltip="The checkpoint's own CLIP; words that it knows may stand in captions."),
                io.Vae.Input("vae", tooltip="The checkpoint's own VAE; it encodes the pictures."),
                TrainingPicturesSocket.Input("pictures", tooltip="From Training Pictures or Scene Pictures."),
                io.Combo.Input(
                    "method", options=list(METHODS), default="word",
                    tooltip="word: smallest; LoRA: closest; ED-LoRA: for Concept Conductor; scene: all things of one "
                    "picture; parts: a thing with a part of another.",
                ),
                io.String.Input("file_name", default="my_cat", tooltip="Name of the new files, without folders."),
                whole(
                    "steps", 0, 0, 10000000,
                    "Steps in total, with those before an interruption; 0: the method's default.",
                ),
                whole(
                    "size", 0, 0, 4096,
                    "Side of the square that is learned, in pixels; 0: as the model was trained.",
                ),
                seed_input("seed", "Seed of the noise, the places and the order."),
                whole(
                    "save_every", 100, 0, 1000000,
                    "Steps between two saved states to resume from; 0: only at the end.",
                ),
                whole("preview_every", 100, 0, 1000000, "Steps between two previews; 0: only at the end."),
                io.String.Input("preview_prompt", default="a photo of {}", tooltip="{} stands for the words."),
                io.Float.Input(
                    "prior_weight", default=1.0, min=0.0, max=100.0, step=0.1,
                    tooltip="How strongly class pictures count in LoRA and scene; 0 without class pictures.",
                ),
                ClassPicturesSocket.Input(
                    "class_pictures", optional=True, tooltip="From Class Pictures: keeps the rest of the class."
                ),
                TrainingOptionsSocket.Input("options", optional=True, tooltip="From Training Options."),
            ],
            outputs=[
                io.Model.Output(tooltip="The model with what was learned, as its file gives it."),
                io.Clip.Output(tooltip="The text encoder that knows the words."),
                io.String.Output(display_name="words", tooltip="What to write into a prompt."),
                io.Image.Output(display_name="previews", tooltip="What it had learned along the way, the result last."),
                io.String.Output(display_name="report", tooltip="Files, steps and loss."),
            ],
        )  # fmt: skip

    @classmethod
    @schema.within_limits()
    def execute(
        cls, model, clip, vae, pictures, method, file_name, steps, size, seed, save_every, preview_every,
        preview_prompt, prior_weight, class_pictures=None, options=None,
    ) -> io.NodeOutput:  # fmt: skip
        limited = {"steps": steps, "size": size, "seed": seed, "save_every": save_every, "preview_every": preview_every}
        request = TrainingRequest(
            method, prior_weight=prior_weight, file_name=file_name, preview_prompt=preview_prompt,
            options={} if options is None else options.changes, **limited,
        )  # fmt: skip
        made = train_concept(model, clip, vae, pictures, request, class_pictures)
        return io.NodeOutput(made.model, made.clip, made.words, made.previews, made.report)


NODES = [TrainConcept]
