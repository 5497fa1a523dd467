"""Which layers of a UNet Concept Conductor reads and writes (arXiv 2408.03632, as published for SD1.5 and SDXL)."""

from dataclasses import dataclass

from .blocks import attention_blocks
from .say import refusal

# Output block of the guidance and of the map, by the number of output blocks: SD1.x and SD2.x have 12, SDXL has 9.
GUIDANCE = {12: 3, 9: 1}
MAP = {12: 8, 9: 1}


@dataclass(frozen=True)
class Layers:
    """Attention blocks by their host keys."""

    levels: dict  # {key: level} of all of them, in order of execution; grids are blocks.grid_at
    guidance: tuple  # whose self-attention keys are compared with the layout picture's
    map: tuple  # whose self-attention shows the shapes of the subjects
    fused: tuple  # where features are blended: all of the decoder, in order of execution

    @property
    def order(self):
        """{key: its number}: which of a layer-wise prompt's contexts it takes."""
        return {key: number for number, key in enumerate(self.levels)}

    @property
    def last(self):
        """After this block the concepts' rows have nothing more to give."""
        return self.fused[-1]


def layers_of(unet):
    """The Layers of a UNet. Raises ValueError for one that has no attention where the method needs it."""
    levels = attention_blocks(unet)
    count = len(unet.output_blocks)
    guidance, chart = (_middle(levels, numbers.get(count)) for numbers in (GUIDANCE, MAP))
    if guidance is None or chart is None:
        raise refusal(
            f"Concept Conductor knows the UNets of SD1.5, SD2.x and SDXL; this one has {count} output blocks and no "
            "attention where they have it: connect such a checkpoint"
        )
    return Layers(levels, guidance, chart, tuple(key for key in levels if key[0] == "output"))


def _middle(levels, number):
    """The middle transformer block of an output block (the fifth of SDXL's ten), or None."""
    keys = [key for key in levels if key[:2] == ("output", number)]
    return keys[(len(keys) - 1) // 2] if keys else None
