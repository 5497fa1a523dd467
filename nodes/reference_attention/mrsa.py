"""MRSA: how multi-reference self-attention (FreeCustom, arXiv 2405.13870) joins a MODEL.

At each noise level a reference pass catches the references' keys and values at the chosen self-attentions (the bank);
the plan says which chunk of the image's rows attends to which of them at which block. Nothing of the references enters
the image's own batch.
"""

import math
from dataclasses import dataclass, replace

import torch

from ..host.attach import attach
from ..host.blocks import attention_blocks, chosen_blocks, grid_at, unet_of
from ..host.messages import input_error, warn_user
from ..host.rows import COND
from ..host.seeded import seeded_noise
from ..host.technique import Technique
from ..host.when import Window
from .noise_level import NoiseLevel
from .reference_branch import ReferenceBranch, Segment
from .reference_rows import count_of_pictures, rows_of

# Beyond this a weight only makes softmax one-hot (FreeCustom uses 1 to 3).
WEIGHT_LIMIT = 20.0
NOISES = ("fresh", "fixed")


@dataclass(frozen=True)
class MRSASettings:
    """What one MRSA node is set to. Raises ValueError for what is no number."""

    weight: float = 3.0  # added to the logits of kept tokens, 0 is off
    blocks: str = "published"  # one of host.blocks.CHOICES
    custom_blocks: str = ""  # attention indices, for blocks "custom"
    style_fidelity: float = 1.0  # share of plain attention on unconditional rows
    window: Window = Window()
    noise: str = "fresh"  # one of NOISES: one draw per step, or one for all
    seed: int = 0
    cache_mb: int = 1024  # budget of the bank across runs

    def __post_init__(self):
        for name in ("weight", "style_fidelity"):
            value = getattr(self, name)
            if not math.isfinite(value):
                raise input_error(f"{name} is {value}; enter a number")


def attach_mrsa(model, clip, vae, references, settings):
    """The MODEL with the references in its self-attention; the MODEL itself where nothing would change.

    references: tuple of References. Raises ValueError for inputs it cannot work with.
    """
    unet = unet_of(model, "Multi-Reference Self-Attention")
    levels = attention_blocks(unet)
    blocks = {block: levels[block] for block in chosen_blocks(unet, settings.blocks, settings.custom_blocks)}
    if not references:
        warn_user("no references are connected, so this node does nothing")
    if not references or settings.weight == 0:
        return model
    weight = max(-WEIGHT_LIMIT, min(WEIGHT_LIMIT, settings.weight))
    rows = _with_tokens(rows_of(model, clip, vae, references, weight), blocks)
    if not rows:
        return model
    member = ReferenceMember(
        rows=tuple(rows),
        pictures=count_of_pictures(references),
        blocks=blocks,
        style_fidelity=max(0.0, min(1.0, settings.style_fidelity)),
        window=settings.window,
        fixed_noise=settings.noise == "fixed",
        seed=settings.seed,
        cache_bytes=int(settings.cache_mb * 2**20),
    )
    return attach(model, MRSA((member,)))


def reference_noise(seed, index, step, like):
    """Gaussian noise of one reference at one step: unit variance, shape of `like` (1, C, h, w), the same everywhere.

    Depends on (seed, index, step) alone, so that more references or evaluations change no other noise.
    """
    return seeded_noise(f"{seed}/{index}/{step}", like.shape).to(like)


@dataclass(frozen=True, eq=False)
class ReferenceMember:
    """What one MRSA node adds to a MODEL."""

    rows: tuple
    pictures: int  # in its chain, those that are off included
    blocks: dict  # {host key: level}, in order of execution
    style_fidelity: float
    window: Window
    fixed_noise: bool
    seed: int
    cache_bytes: int
    # pictures of the nodes before this one: their noises are numbered on, as in one chain
    first: int = 0

    def reads(self, chunk):
        """Unconditional rows at style_fidelity 1 stay plain, and cost nothing."""
        return chunk.role == COND or self.style_fidelity < 1

    def inputs(self, call, row):
        """UNet input (1, C, h, w) of a reference at the noise level of this call, on the CPU in float32."""
        step = 0 if self.fixed_noise else call.moment.step
        noise = reference_noise(self.seed, self.first + row.index, step, row.latent)
        sigma = torch.tensor([call.moment.sigma])
        sampling = call.base.model_sampling
        x = sampling.calculate_input(sigma, sampling.noise_scaling(sigma, noise, row.latent))
        return row.inputs.beside(x)


class MRSA(Technique):
    """All MRSA nodes of one MODEL: their references share one softmax."""

    name = "mrsa"
    order = 40

    def __init__(self, members):
        self.members = members

    def joined_by(self, later):
        first = sum(member.pictures for member in self.members)
        return MRSA(self.members + tuple(replace(member, first=first + member.first) for member in later.members))

    def extra_rows(self, noise_shape):
        area = math.prod(noise_shape[2:])
        return math.ceil(sum(math.prod(row.latent_size) for member in self.members for row in member.rows) / area)

    def plan(self, call):
        level = call.run.state(self.name, NoiseLevel)
        level.enter(call.moment.sigma)
        segments = {}
        for number, member in enumerate(self.members):
            if not member.window.holds(call.moment, call.base.model_sampling):
                continue
            for chunk in filter(member.reads, call.chunks):
                entries = level.entries(call, number, member, chunk)
                for row, entry in zip(member.rows, entries, strict=True):
                    for block, (k, v) in entry.items():
                        bias = level.bias(row, grid_at(member.blocks[block], row.latent_size), k.device)
                        segment = Segment(row, k, v, bias, member.style_fidelity)
                        segments.setdefault(block, {}).setdefault(chunk, []).append(segment)
        return {("attn1", block): ReferenceBranch(chunks, call.run) for block, chunks in segments.items()}


def _with_tokens(rows, blocks):
    """The rows whose masks leave a token somewhere; what falls away is said on the node."""
    left = []
    for row in rows:
        grids = {grid_at(level, row.latent_size) for level in blocks.values()}
        empty = sorted(grid for grid in grids if not len(row.kept(grid)[0]))
        if empty:
            sizes = ", ".join(f"{h}x{w}" for h, w in empty)
            warn_user(
                f"{row.view.label}: its mask keeps no token on the {sizes} grid, so it has no effect there; "
                "draw it larger"
            )
        if len(empty) < len(grids):
            left.append(row)
    return left
