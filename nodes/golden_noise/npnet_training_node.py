"""Own Golden Noise: collect noise pairs with a model, train an NPNet on them."""

from comfy_api.latest import io

from .. import schema
from ..files.output_folder import folder_stamp, output_folder
from ..widgets import seed_input, whole
from .noise_pairs import PAIR_FILES, PROMPT_FILES, collect_pairs
from .npnet_training import is_trained, train
from .npnet_wire import NPNet
from .redenoised import RedenoiseSettings


def _folder():
    return io.String.Input(
        "folder", default="npnet_pairs", tooltip="A folder inside ComfyUI's output folder; one per model and size."
    )


class NoisePairs(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationNoisePairs",
            display_name="Collect Noise Pairs",
            category="personalization/npnet",
            description="Writes pairs of plain and re-denoised noise for one prompt to files, to train an NPNet on. "
            "Run it for many prompts; existing pairs are kept.",
            search_aliases=["NPNet", "golden noise", "training data"],
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="The model that the network is for."),
                io.Conditioning.Input("positive", tooltip="The prompt."),
                io.Conditioning.Input("negative", tooltip="The negative prompt."),
                _folder(),
                seed_input("seed", "Seed of the first pair; the next ones count up from it."),
                whole("count", 16, 1, 100000, "How many pairs; each costs three UNet calls."),
                whole("width", 1024, 64, 4096, "Width of the pictures; a network learns one square size."),
                whole("height", 1024, 64, 4096, "Height of the pictures; a network learns one square size."),
                io.Float.Input(
                    "guidance", default=5.5, min=0.0, max=30.0, step=0.1, tooltip="CFG of the step forward."
                ),
                io.Float.Input(
                    "inverse_guidance", default=1.0, min=0.0, max=30.0, step=0.1, tooltip="CFG of the step back."
                ),
                whole("steps", 50, 2, 1000, "Step size as 1/steps of the schedule."),
            ],
            outputs=[io.String.Output(display_name="pairs", tooltip="The folder, for Train NPNet.")],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, folder=None, **_):
        return folder_stamp(folder, PAIR_FILES)

    @classmethod
    @schema.within_limits()
    def execute(
        cls, model, positive, negative, folder, seed, count, width, height, guidance, inverse_guidance, steps
    ) -> io.NodeOutput:
        settings = RedenoiseSettings(guidance, inverse_guidance, steps)
        seeds = range(seed, seed + count)
        collect_pairs(
            model, positive, negative, output_folder(folder), seeds=seeds, size=(width, height), settings=settings
        )
        return io.NodeOutput(folder)


class TrainNPNet(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return schema.Schema(
            node_id="PersonalizationTrainNPNet",
            display_name="Train NPNet",
            category="personalization/npnet",
            description="Trains a Golden Noise network on collected pairs and writes it to models/npnet. You can "
            "interrupt it: with the same name and settings it resumes.",
            search_aliases=["golden noise", "training"],
            is_output_node=True,
            inputs=[
                _folder(),
                io.String.Input("file_name", default="my_npnet", tooltip="Name of the new file in models/npnet."),
                whole("steps", 1000, 1, 10000000, "Training steps in total, including those before an interruption."),
                whole("batch_size", 16, 1, 4096, "Pairs per step; 64 as published."),
                io.Float.Input(
                    "learning_rate", default=1e-4, min=1e-8, max=1.0, step=1e-6, round=1e-8,
                    tooltip="1e-4 as published.",
                ),
                seed_input("seed", "Chooses the pairs of each step and the initial weights."),
                NPNet.Input(
                    "npnet", optional=True, tooltip="A network to start from; it then needs far fewer pairs."
                ),
            ],
            outputs=[
                NPNet.Output(display_name="npnet", tooltip="The trained network, for Golden Noise."),
                io.String.Output(display_name="report", tooltip="The file, the steps, and the loss on held-out pairs."),
            ],
        )  # fmt: skip

    @classmethod
    def fingerprint_inputs(cls, folder=None, file_name=None, **_):
        return f"{folder_stamp(folder, PAIR_FILES, PROMPT_FILES)} {folder is not None and is_trained(file_name)}"

    @classmethod
    @schema.within_limits()
    def execute(cls, folder, file_name, steps, batch_size, learning_rate, seed, npnet=None) -> io.NodeOutput:
        settings = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate, "seed": seed}
        net, path, report = train(output_folder(folder), file_name, npnet, **settings)
        return io.NodeOutput(net, report)


NODES = [NoisePairs, TrainNPNet]
