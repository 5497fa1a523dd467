"""Whether an image adapter's matrices fit a model, and which of its cross-attentions each pair belongs to."""

from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

from ..host.blocks import attention_blocks, cross_attention
from ..host.messages import input_error
from .image_adapter import family_of_width

# IP-Adapter counts attentions in this order (diffusers lists down, up, mid).
FILE_ORDER = ("input", "output", "middle")
# Classes of diffusion models whose names say little.
_NAMES = {"OpenAISignatureMMDITWrapper": "SD3", "MMDiT": "SD3"}


def check_fits(adapter, unet):
    """The host keys of the UNet's cross-attentions, one per pair of the adapter and in the order of its pairs.

    Raises ValueError, naming both, for an adapter of another base model and for a model without cross-attention.
    """
    layers = cross_attentions(unet)
    width = next(iter(layers.values()))[1]
    if adapter.width != width:
        family = family_of_width(width)
        raise input_error(
            f"{adapter.name} is made for {adapter.family}, this model is {family}; choose an adapter for {family}, "
            f"or a checkpoint of {adapter.family}"
        )
    if len(adapter.pairs) != len(layers):
        counts = f"it has {len(adapter.pairs)} pairs of matrices, the model has {len(layers)} cross-attentions"
        raise _misfit(adapter, counts)
    for number, (pair, (block, sizes)) in enumerate(zip(adapter.pairs, layers.items(), strict=True)):
        if tuple(pair.to_k.shape) != sizes:
            raise _misfit(
                adapter,
                f"its pair {2 * number + 1} is {list(pair.to_k.shape)}, the model's {block} needs {list(sizes)}",
            )
    return tuple(layers)


def cross_attentions(unet):
    """{host key: (C, D)} of the cross-attentions in the order of adapter files; ValueError if there are none."""
    layers = {}
    if isinstance(unet, UNetModel):
        for key in sorted(attention_blocks(unet), key=lambda block: FILE_ORDER.index(block[0])):
            attention = cross_attention(unet, key)
            if attention is not None:
                layers[key] = attention.to_k.out_features, attention.to_k.in_features
    if not layers:
        kind = _NAMES.get(type(unet).__name__, type(unet).__name__)
        raise input_error(
            f"an image adapter needs a UNet with cross-attention, but this model is {kind}; "
            "connect an SD1.5, SD2.x or SDXL checkpoint"
        )
    return layers


def _misfit(adapter, reason):
    return input_error(
        f"{adapter.name} does not fit this model: {reason}; choose an adapter made for this family of checkpoints"
    )
