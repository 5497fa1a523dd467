"""Where what was trained for the pocket model lies in the pack: folders of models, as ComfyUI names them."""

from pathlib import Path

FOLDER = Path(__file__).parents[2] / "nodes" / "pocket" / "companions"
VISION_FILE = Path("clip_vision") / "vision.safetensors"


def load_vision(path=FOLDER / VISION_FILE):
    """The host's CLIP_VISION with the weights of this file."""
    from samples import pack

    pack()
    from pack.nodes.pocket.pocket_companions import load_vision as read

    return read(path)
