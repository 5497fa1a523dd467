"""What goes with the pocket model and no loader of the host's reads or lists: its image encoder and its LoRAs."""

import functools
import tempfile
from pathlib import Path

from comfy.clip_vision import ClipVisionModel
from comfy.sd import load_lora_for_models

from ..files.companions import COMPANIONS
from ..files.safe_files import read_tensors
from ..host.choices import check_listed
from ..host.messages import input_error

VISION_FILE = COMPANIONS / "clip_vision" / "vision.safetensors"
_LORA = "_lora.safetensors"


def load_vision(path=VISION_FILE):
    """The host's CLIP_VISION with the weights of this file, whose metadata tell its shape; ValueError if it is damaged.

    The host's own loader tells image encoders by the published shapes, and this one is smaller than all of them.
    """
    tensors, metadata = _read(path)
    with tempfile.TemporaryDirectory(prefix="vision-") as folder:
        # older hosts read the shape from a file only
        written = Path(folder) / "config.json"
        written.write_text(metadata.get("config", ""), encoding="utf-8")
        try:
            model = ClipVisionModel(str(written))
            missing, unexpected = model.load_sd(tensors)
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            raise input_error(f"{path.name} does not fit the shape that it tells; reinstall the pack") from error
    if missing or unexpected:
        raise input_error(f"{path.name} lacks tensors or has some too many; reinstall the pack")
    return model


@functools.cache
def pocket_loras():
    """Names of the LoRAs that were trained for the pocket model."""
    return tuple(path.name.removesuffix(_LORA) for path in sorted((COMPANIONS / "loras").glob(f"*{_LORA}")))


def with_pocket_lora(model, name, strength):
    """The MODEL with one of these LoRAs, as the host's own Load LoRA attaches it; ValueError if there is none such."""
    check_listed("lora", name, pocket_loras())
    tensors, _ = _read(COMPANIONS / "loras" / f"{name}{_LORA}")
    return load_lora_for_models(model, None, tensors, strength, 0)[0]


def _read(path):
    if not path.is_file():
        raise input_error(f"the pocket model's file {path.name} is missing; reinstall the pack, which contains it")
    return read_tensors(path)
