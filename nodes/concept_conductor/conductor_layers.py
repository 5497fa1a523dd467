"""Which layers of a UNet Concept Conductor reads and writes (arXiv 2408.03632, as published for SD1.5 and SDXL)."""

from dataclasses import dataclass

from ..host.blocks import attention_blocks, middle_block, no_such_attention, shape_block

# Output block of the guidance by the number of output blocks, as published: 3 of the 12 of SD1.x and SD2.x, where the
# grid is coarse and keys tell things and not their textures; 1 of SDXL's 9, where the shapes are read too.
GUIDANCE = {12: 3, 9: 1}


@dataclass(frozen=True)
class ConductorLayers:
    """Attention blocks by their host keys."""

    levels: dict  # {key: level} of all of them, in order of execution; grids are blocks.grid_at
    guidance: tuple  # whose self-attention keys are compared with the layout picture's
    shapes: tuple  # whose self-attention shows the shapes of the subjects
    fused: tuple  # where features are blended: all of the decoder, in order of execution

    @property
    def last(self):
        """After this block the concepts' rows have nothing more to give."""
        return self.fused[-1]


def layers_of(unet):
    """The ConductorLayers of a UNet. Raises ValueError for one that has no attention where the method needs it."""
    levels = attention_blocks(unet)
    shapes = shape_block(unet, "Concept Conductor")
    guidance = middle_block(unet, GUIDANCE)
    if guidance is None:
        raise no_such_attention(unet, "Concept Conductor")
    return ConductorLayers(levels, guidance, shapes, tuple(key for key in levels if key[0] == "output"))
