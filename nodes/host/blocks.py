"""Names of a UNet's attention blocks, in the order in which they run."""

import re

from comfy.ldm.modules.attention import SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, ResBlock, UNetModel, Upsample

from .calls import as_written, live_unet
from .messages import input_error

# Self-attentions by host block, after FreeCustom's layers 10-15 of 16 (its config) and their SDXL counterparts.
# SDXL has three levels (9 output blocks), the SD1.x and SD2.x family four (12).
PRESETS = {
    "published": {9: range(1, 6), 12: range(6, 12)},
    "fine": {9: range(3, 6), 12: range(9, 12)},
}
# Output block whose self-attention shows the shapes of things best (Concept Conductor, arXiv 2408.03632).
SHAPES = {9: 1, 12: 8}
CHOICES = ("published", "fine", "all up", "all", "custom")


def unet_of(model, what):
    """The host's UNet inside a MODEL.

    Raises ValueError, naming `what` needs it and the class of the model, if the MODEL holds no UNet with attention.
    """
    unet = live_unet(model.model)
    if not isinstance(unet, UNetModel) or not attention_blocks(unet):
        name = type(model.model).__name__
        raise input_error(
            f"{what} works on UNet models (SD1.5, SD2.x, SDXL); this one is {name}: connect a checkpoint of these "
            "families"
        )
    return unet


def attention_blocks(unet):
    """All attention blocks as host keys (name, number, index in the block), in order of execution.

    Returns {key: level}; the token grid of a level is `grid_at`.
    """
    middle = [unet.middle_block] if unet.middle_block is not None else []
    found, level = {}, 0
    for name, blocks in (("input", unet.input_blocks), ("middle", middle), ("output", unet.output_blocks)):
        for number, layers in enumerate(blocks):
            for layer in map(as_written, as_written(layers)):
                if isinstance(layer, SpatialTransformer):
                    found |= {(name, number, index): level for index in range(len(layer.transformer_blocks))}
                level += isinstance(layer, Downsample) - isinstance(layer, Upsample)
    return found


# Of the levels of a UNet, the one whose grid has a quarter of the latent's sides.
QUARTER = 2


def quarter_blocks(levels):
    """Of {host key: level} the keys of that level outside of the middle, whose maps tell things apart
    (Break-A-Scene, arXiv 2305.16311; ConceptExpress, arXiv 2407.07077).
    """
    return [key for key, level in levels.items() if level == QUARTER and key[0] != "middle"]


def middle_block(unet, numbers):
    """The host key of the middle transformer of an output block (the fifth of SDXL's ten); None where there is none.

    numbers: {count of output blocks: number of the block}.
    """
    keys = [key for key in attention_blocks(unet) if key[:2] == ("output", numbers.get(len(unet.output_blocks)))]
    return keys[(len(keys) - 1) // 2] if keys else None


def shape_block(unet, what):
    """The host key of the self-attention that shows the shapes of things best.

    Raises ValueError, naming `what` needs it, for a UNet that has none there.
    """
    found = middle_block(unet, SHAPES)
    if found is None:
        raise no_such_attention(unet, what)
    return found


def no_such_attention(unet, what):
    """The exception for a UNet without attention where the known families have it; `what` needs it."""
    return input_error(
        f"{what} supports the UNets of SD1.5, SD2.x and SDXL; this one has {len(unet.output_blocks)} output blocks and "
        "no attention where those have it: connect a checkpoint of these families"
    )


def name_of_block(block):
    """The name of a transformer block in the UNet's state dict, by its host key (name, number, index)."""
    name, number, index = block
    layers = "middle_block" if name == "middle" else f"{name}_blocks.{number}"
    return f"{layers}.1.transformer_blocks.{index}"


def cross_attention(unet, block):
    """The module that reads the text at a host key (name, number, index)."""
    return _transformer(unet, block).transformer_blocks[block[2]].attn2


def self_attention(unet, block):
    """The module in which the image's tokens read each other at a host key."""
    return _transformer(unet, block).transformer_blocks[block[2]].attn1


def channels_at(unet, block):
    """The number of channels of the features at a host key."""
    return _transformer(unet, block).in_channels


def block_layers(unet, name, number):
    """The layers of one block of a UNet ("input", "middle" or "output"), in order of execution."""
    layers = unet.middle_block if name == "middle" else getattr(unet, f"{name}_blocks")[number]
    return [as_written(layer) for layer in as_written(layers)]


def holds_features(layer):
    """Whether a layer is a ResNet or a transformer of a block, not one that changes the resolution."""
    return isinstance(layer, ResBlock | SpatialTransformer)


def residual_layers(blocks):
    """The ResNets of blocks of a UNet, in order of execution."""
    layers = (layer for block in blocks for layer in map(as_written, as_written(block)))
    return [layer for layer in layers if isinstance(layer, ResBlock)]


def residual_levels(unet, name):
    """{(name, number): level} of the blocks of one way ("input" or "output") that hold a ResNet."""
    found, level = {}, 0
    for number in range(len(getattr(unet, f"{name}_blocks"))):
        layers = block_layers(unet, name, number)
        if any(isinstance(layer, ResBlock) for layer in layers):
            found[name, number] = level
        level += any(isinstance(layer, Downsample | Upsample) for layer in layers)
    return found


def _transformer(unet, block):
    (transformer,) = (layer for layer in block_layers(unet, *block[:2]) if isinstance(layer, SpatialTransformer))
    return transformer


def grid_at(level, latent_size):
    """Tokens (h, w) of a level for a latent (h, w): each level halves and rounds up, as the UNet's convolutions do."""
    for _ in range(level):
        latent_size = tuple(-(-side // 2) for side in latent_size)
    return tuple(latent_size)


def chosen_blocks(unet, choice, custom=""):
    """The attention blocks that a choice of the widget names; `custom` is read for "custom" only.

    Raises ValueError for a choice that names none, or indices that the UNet does not have.
    """
    blocks = list(attention_blocks(unet))
    if choice == "custom":
        return [blocks[i] for i in _indices(custom, len(blocks))]
    if choice == "all":
        return blocks
    numbers = PRESETS.get(choice, {}).get(len(unet.output_blocks), range(len(unet.output_blocks)))
    chosen = [block for block in blocks if block[0] == "output" and block[1] in numbers]
    if not chosen:
        raise input_error(f'blocks "{choice}" matches no attention of this UNet; choose "all up" or "custom"')
    return chosen


def _indices(text, count):
    chosen = set()
    for part in filter(None, re.split(r"[,;\s]+", re.sub(r"\s*-\s*", "-", text.strip()))):
        match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part)
        if not match:
            raise input_error(f'custom_blocks has "{part}"; enter attention indices such as "10-15" or "4, 7, 10-12"')
        first, last = int(match[1]), int(match[2] or match[1])
        if max(first, last) >= count:
            raise input_error(f"custom_blocks has {part}; this model has {count} attention blocks, 0 to {count - 1}")
        if last < first:
            raise input_error(f"custom_blocks has {part}; enter the smaller index first")
        chosen.update(range(first, last + 1))
    if not chosen:
        raise input_error('blocks is "custom" but custom_blocks is empty; enter attention indices such as "10-15"')
    return sorted(chosen)
