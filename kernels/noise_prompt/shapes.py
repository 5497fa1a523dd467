"""Which tensors an NPNet file holds, and what their shapes must be."""

from dataclasses import dataclass

from ..named_weights import linear_shapes, norm_shapes
from .prompts import TOKENS
from .swin import WINDOW, count

# Stored in every published file and used by nothing: the classifier and a norm.
IGNORED = ("unet_embedding.swin.head.", "unet_svd.bn.")
PATCH, STAGES, CHANNELS = 4, 4, 4


@dataclass(frozen=True)
class NPNetSizes:
    """R (side of the noise), D (width of the prompt), and Swin's width, depths and heads."""

    side: int
    prompt: int
    width: int
    depths: tuple
    heads: tuple
    vectors: int  # hidden width of mlp1 and mlp2
    values: int  # hidden width of mlp4


def npnet_sizes(shapes):
    """The NPNetSizes that {name: shape} speak of; KeyError names a tensor that is missing for it."""
    below = "unet_embedding.swin."
    depths = tuple(count(shapes, f"{below}layers.{stage}.blocks.") for stage in range(STAGES))
    table = below + "layers.{}.blocks.0.attn.relative_position_bias_table"
    return NPNetSizes(
        side=shapes["unet_svd.mlp3.0.weight"][0] // 2,
        prompt=shapes["embeeding.linear.weight"][-1] // TOKENS,
        width=shapes[f"{below}patch_embed.proj.weight"][0],
        depths=depths,
        heads=tuple(shapes[table.format(stage)][-1] for stage in range(STAGES)),
        vectors=shapes["unet_svd.mlp1.0.weight"][0],
        values=shapes["unet_svd.mlp4.0.weight"][0],
    )


def npnet_shapes(sizes):
    """{name: shape} of every tensor that the network reads."""
    shapes = {"alpha": (1,), "beta": (1,)}
    shapes |= linear_shapes("embeeding.linear", 2 * CHANNELS, sizes.prompt * TOKENS)
    shapes |= linear_shapes("unet_embedding.upconv", CHANNELS, WINDOW, 1, 1)
    shapes |= linear_shapes("unet_embedding.downconv", 3, CHANNELS, 1, 1)
    shapes |= {f"unet_embedding.swin.{name}": shape for name, shape in _swin(sizes).items()}
    side = 2 * sizes.side
    for mlp, hidden in (("mlp1", sizes.vectors), ("mlp2", sizes.vectors), ("mlp4", sizes.values)):
        shapes |= linear_shapes(f"unet_svd.{mlp}.0", hidden, side) | linear_shapes(f"unet_svd.{mlp}.2", side, hidden)
    shapes |= linear_shapes("unet_svd.mlp3.0", side, side) | linear_shapes("unet_svd.attention.proj", side, side)
    shapes["unet_svd.attention.qkv.weight"] = (3 * side, side)
    return shapes


def _swin(sizes):
    shapes = linear_shapes("patch_embed.proj", sizes.width, 3, PATCH, PATCH)
    shapes |= norm_shapes("patch_embed.norm", sizes.width)
    width = sizes.width
    for stage, (depth, heads) in enumerate(zip(sizes.depths, sizes.heads, strict=True)):
        if stage > 0:
            shapes |= norm_shapes(f"layers.{stage}.downsample.norm", 4 * width)
            shapes[f"layers.{stage}.downsample.reduction.weight"] = (2 * width, 4 * width)
            width *= 2
        for block in range(depth):
            name = f"layers.{stage}.blocks.{block}"
            shapes |= norm_shapes(f"{name}.norm1", width) | norm_shapes(f"{name}.norm2", width)
            shapes[f"{name}.attn.relative_position_bias_table"] = ((2 * WINDOW - 1) ** 2, heads)
            for layer, out, inner in (("attn.qkv", 3, 1), ("attn.proj", 1, 1), ("mlp.fc1", 4, 1), ("mlp.fc2", 1, 4)):
                shapes |= linear_shapes(f"{name}.{layer}", out * width, inner * width)
    return shapes | norm_shapes("norm", width)
