"""Names of the weights in a ResAdapter file, in all layouts that trainers write."""

import re

from ..host.messages import input_error

# What trainers put before the name of a module; they can stand behind each other.
_ROOTS = re.compile(r"^(?:base_model\.model\.|diffusion_model\.|unet\.|model\.|lora_unet_)+")
_DOWN = r"lora_down|lora_A|lora\.down|lora_linear_layer\.down"
_UP = r"lora_up|lora_B|lora\.up|lora_linear_layer\.up"
# PEFT may put the name of the adapter before "weight".
_LAYOUTS = {
    "down": re.compile(rf"^(.+)\.(?:{_DOWN})(?:\.[^.]+)?\.weight$"),
    "up": re.compile(rf"^(.+)\.(?:{_UP})(?:\.[^.]+)?\.weight$"),
    "alpha": re.compile(r"^(.+)\.alpha$"),
    # what the export writes: the host's stock LoRA loader sets such weights
    "bias": re.compile(r"^(.+norm[12]|.+_layers\.0)\.bias(?:\.set_weight)?$"),
    "weight": re.compile(r"^(.+norm[12]|.+_layers\.0)(?:\.weight|\.set_weight)$"),
}
# Only a UNet of four levels (SD1.5) has these modules, in diffusers' names and in the host's.
_FOUR_LEVELS = re.compile(
    r"(down|up)_blocks_3_|(down|up)_blocks_2_(down|up)samplers|put_blocks_(9|10|11)_|output_blocks_8_2_|output_blocks_2_1_"
)
# A whole set for three levels (SDXL) has these convolutions, or norms in so many modules.
_SDXL_CONVS = (
    {f"{way}_blocks_{i}_{way}samplers_0_conv" for way in ("down", "up") for i in (0, 1)},
    {"input_blocks_3_0_op", "input_blocks_6_0_op", "output_blocks_2_2_conv", "output_blocks_5_2_conv"},
)
_SDXL_NORMS = 34


def read_keys(weights, file):
    """The weights of one file by module: ({module: {"down", "up", "alpha"}}, {module: {"weight", "bias"}}).

    Modules are in diffusers' or the host's words with "_" for dots. Raises ValueError for keys of anything else.
    """
    convs, norms = {}, {}
    for key, tensor in weights.items():
        part, module = _part_of(key)
        if part is None:
            raise input_error(f"{file} contains {key}, which no ResAdapter has; choose a file of a ResAdapter set")
        there = (norms if part in ("weight", "bias") else convs).setdefault(module, {})
        if part in there:
            raise input_error(
                f"{file} contains {part} of {module} twice, so it may be two adapters; put each into its own file"
            )
        there[part] = tensor
    for module, parts in convs.items():
        missing = [part for part in ("down", "up") if part not in parts]
        if missing:
            raise input_error(f"{file} lacks the LoRA's {missing[0]} weight of {module}; download the file again")
    return convs, norms


def family_of_modules(convs, norms):
    """ "SD1.5" or "SDXL" by the modules that a set changes; None for a part of a set that both could have."""
    if any(_FOUR_LEVELS.search(module) for module in (*convs, *norms)):
        return "SD1.5"
    if set(convs) in _SDXL_CONVS or len(norms) == _SDXL_NORMS:
        return "SDXL"
    return None


def _part_of(key):
    for part, layout in _LAYOUTS.items():
        match = layout.match(key)
        if match:
            return part, _ROOTS.sub("", match[1]).replace(".", "_")
    return None, None
