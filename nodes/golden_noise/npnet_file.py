"""NPNet weight files: the published pickles, two safetensors layouts, files of older timm; told by keys and shapes."""

import re
from dataclasses import dataclass

from ...kernels.noise_prompt import IGNORED, NPNetSizes, npnet_shapes, npnet_sizes
from ..files.model_files import path_of, register
from ..files.safe_files import read_tensors
from ..host.families import PROMPT_WIDTHS
from ..host.messages import input_error

NPNET_KINDS = ("npnet", "npnets")

register(*NPNET_KINDS)


@dataclass(frozen=True, eq=False)
class NoisePromptNet:
    """The weights of one NPNet on the CPU in float32, by their published names."""

    name: str
    weights: dict
    sizes: NPNetSizes

    @property
    def family(self):
        width = self.sizes.prompt
        return f"{PROMPT_WIDTHS[width]} ({width})" if width in PROMPT_WIDTHS else f"prompts {width} wide"


def load_npnet(name):
    """The NPNet of a file in the folders; ValueError says what is wrong with it."""
    return net_from(read_tensors(path_of(name, *NPNET_KINDS))[0], name)


def net_from(tensors, name):
    """The NPNet of {"group.key": tensor}; all tensors fit, or ValueError names the first that does not."""
    found = _published_names(tensors)
    shapes = {key: tuple(t.shape) for key, t in found.items()}
    try:
        sizes = npnet_sizes(shapes)
    except KeyError as error:
        raise _no_npnet(name, f"{error.args[0]} is missing") from error
    expected = npnet_shapes(sizes)
    for key, shape in expected.items():
        if key not in shapes:
            raise _no_npnet(name, f"{key} is missing")
        if shapes[key] != shape:
            raise _no_npnet(name, f"{key} has the shape {list(shapes[key])} instead of {list(shape)}")
    unexpected = sorted(set(shapes) - set(expected))
    if unexpected:
        raise _no_npnet(name, f"{unexpected[0]} is unexpected")
    weights = {key: found[key].detach().float().contiguous() for key in expected}
    return NoisePromptNet(name, weights, sizes)


def _published_names(tensors):
    swin = "unet_embedding.swin."
    # timm before 0.9 counted a downsampling to the stage before it, and stored tables that follow from the sizes
    early = f"{swin}layers.0.downsample.norm.weight" in tensors
    found = {}
    for key, t in tensors.items():
        key = re.sub(r"^text_embedding\.", "embeeding.", key)
        if early:
            key = re.sub(r"(?<=swin\.layers\.)(\d)(?=\.downsample\.)", lambda match: str(int(match[1]) + 1), key)
        if not key.startswith(IGNORED) and not key.endswith((".relative_position_index", ".attn_mask")):
            found[key] = t.reshape(1) if key in ("alpha", "beta") and t.numel() == 1 else t
    return found


def _no_npnet(name, reason):
    return input_error(f"{name} is not an NPNet checkpoint: {reason}; choose a Golden Noise file such as sdxl.pth")
