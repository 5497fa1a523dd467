"""What was trained for the pocket model, as a pack of the host: folders of models, and a node for the image encoder.

The host's own loader tells image encoders by the published shapes, and this one is smaller than all of them.
"""

import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
# what it holds, as ComfyUI names it
MODELS = ("ipadapter", "loras", "npnet", "resadapter")
VISION_FILE = Path("clip_vision") / "vision.safetensors"


def load_vision(path=FOLDER / VISION_FILE):
    """The host's CLIP_VISION with the weights of this file, whose metadata tell its shape."""
    from comfy.clip_vision import ClipVisionModel
    from safetensors import safe_open
    from safetensors.torch import load_file

    with safe_open(path, "pt") as file:
        config = file.metadata()["config"]
    with tempfile.TemporaryDirectory(prefix="vision-") as folder:
        # older hosts read it from a file only
        written = Path(folder) / "config.json"
        written.write_text(config, encoding="utf-8")
        model = ClipVisionModel(str(written))
    missing, unexpected = model.load_sd(load_file(path))
    if missing or unexpected:
        raise ValueError(f"{path} does not fit: {missing} missing, {unexpected} too many")
    return model


async def comfy_entrypoint():
    import folder_paths
    from comfy_api.latest import ComfyExtension, io

    for name in MODELS:
        folder_paths.add_model_folder_path(name, str(FOLDER / name))

    class PocketVision(io.ComfyNode):
        @classmethod
        def define_schema(cls):
            return io.Schema(
                node_id="PocketVision",
                display_name="Pocket Vision",
                category="personalization/tests",
                description="The image encoder that goes with the pocket model's image adapters.",
                inputs=[],
                outputs=[io.ClipVision.Output()],
            )

        @classmethod
        def execute(cls) -> io.NodeOutput:
            return io.NodeOutput(load_vision())

    class Companions(ComfyExtension):
        async def get_node_list(self):
            return [PocketVision]

    return Companions()
