"""What a training learns from: pictures of subjects, a scene of several things, pictures of their class."""

from comfy_api.latest import io

from .. import schema
from ..widgets import seed_input, whole
from .caption_templates import TEMPLATES
from .class_pictures import ClassSettings, class_pictures
from .pictures_wire import ClassPicturesSocket, TrainingPicturesSocket
from .training_pictures import scene_of, with_subject


class TrainingPicturesNode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationTrainPictures",
            display_name="Training Pictures",
            category="personalization/training",
            description="Pictures of one subject with the word that they teach, for Train Concept. Chain one node per "
            "subject for several.",
            search_aliases=["dataset", "textual inversion", "dreambooth", "train lora", "captions"],
            inputs=[
                io.Image.Input(
                    "image", tooltip="The pictures of the subject, one to about twenty, as a batch of one size."
                ),
                io.String.Input(
                    "word",
                    default="<my_cat>",
                    tooltip="The new word that stands for the subject in prompts. Brackets keep it apart from "
                    "ordinary words; the LoRA method takes a rare word such as sks instead.",
                ),
                io.String.Input(
                    "class_word",
                    default="cat",
                    tooltip="What kind of thing it is, in one word that the model knows: where learning starts.",
                ),
                io.String.Input(
                    "captions",
                    default="",
                    multiline=True,
                    placeholder="a photo of {} on grass",
                    tooltip="What each picture shows, a line for each, or one for all; {} stands for the word. Name "
                    "everything that is not the subject. Empty: short templates.",
                ),
                io.Combo.Input(
                    "templates",
                    options=list(TEMPLATES),
                    default="object",
                    tooltip="Which templates are used where captions is empty.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="White on the subject: one mask for each picture, or one for all. What lies outside is not "
                    "learned by the methods that use masks.",
                ),
                TrainingPicturesSocket.Input(
                    "pictures", optional=True, tooltip="Further subjects, from another Training Pictures."
                ),
            ],
            outputs=[
                TrainingPicturesSocket.Output(
                    display_name="pictures", tooltip="All subjects so far, for Train Concept."
                )
            ],
        )

    @classmethod
    def execute(cls, image, word, class_word, captions, templates, mask=None, pictures=None) -> io.NodeOutput:
        return io.NodeOutput(with_subject(image, word, class_word, captions, templates, mask, pictures))


class ScenePictures(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationTrainScene",
            display_name="Scene Pictures",
            category="personalization/training",
            description="One picture of several things, with a mask and a word for each, for the method scene of Train "
            "Concept (Break-A-Scene). Find Concepts makes the masks.",
            search_aliases=["Break-A-Scene", "dataset", "multiple concepts", "one picture"],
            inputs=[
                io.Image.Input("image", tooltip="One picture with all things in it."),
                io.Mask.Input("masks", tooltip="One mask for each thing, as a batch; they may overlap."),
                io.String.Input(
                    "words",
                    default="<a>, <b>",
                    tooltip="A new word for each thing, separated by commas, in the order of the masks.",
                ),
                io.String.Input(
                    "class_words",
                    default="",
                    tooltip="What kind of thing each is, separated by commas: where learning starts. Empty: unknown.",
                ),
            ],
            outputs=[TrainingPicturesSocket.Output(display_name="pictures", tooltip="The scene, for Train Concept.")],
        )

    @classmethod
    def execute(cls, image, masks, words, class_words) -> io.NodeOutput:
        return io.NodeOutput(scene_of(image, masks, words, class_words))


class ClassPicturesNode(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationTrainClassPictures",
            display_name="Class Pictures",
            category="personalization/training",
            description="Draws pictures of a class with the model as it is, so that a training can keep the class as "
            "it is (DreamBooth's prior preservation). Pictures that are there already are kept.",
            search_aliases=["regularization images", "prior preservation", "DreamBooth"],
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="The model that will learn the subject."),
                io.Conditioning.Input("positive", tooltip="The class without the subject: a photo of a cat."),
                io.Conditioning.Input("negative", tooltip="The negative prompt for drawing; empty as published."),
                io.String.Input(
                    "prompt",
                    default="a photo of a cat",
                    tooltip="The text of positive once more; the pictures are learned with it.",
                ),
                io.String.Input(
                    "folder",
                    default="class_cat",
                    tooltip="A folder inside ComfyUI's output folder, which keeps the pictures.",
                ),
                whole("count", 100, 1, 100000, "How many pictures; 100 to 200 as published, fewer do for a trial."),
                whole("width", 512, 64, 4096, "Width of the pictures; that of the training."),
                whole("height", 512, 64, 4096, "Height of the pictures; that of the training."),
                whole("steps", 25, 1, 1000, "Sampling steps for each picture."),
                io.Float.Input("cfg", default=7.5, min=0.0, max=100.0, step=0.1, tooltip="CFG for drawing."),
                seed_input("seed", "Seed of the first picture; the next ones count up from it."),
            ],
            outputs=[
                ClassPicturesSocket.Output(display_name="class_pictures", tooltip="The pictures, for Train Concept.")
            ],
        )  # fmt: skip

    @classmethod
    @schema.within_limits()
    def execute(
        cls, model, positive, negative, prompt, folder, count, width, height, steps, cfg, seed
    ) -> io.NodeOutput:
        settings = ClassSettings((width, height), steps, cfg)
        seeds = range(seed, seed + count)
        return io.NodeOutput(class_pictures(model, positive, negative, prompt, folder, seeds, settings))


NODES = [TrainingPicturesNode, ScenePictures, ClassPicturesNode]
