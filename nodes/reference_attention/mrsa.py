"""MRSA: how multi-reference self-attention (FreeCustom, arXiv 2405.13870) joins a MODEL.

At each noise level a reference pass catches the references' keys and values at the chosen self-attentions (the bank);
the plan says which chunk of the image's rows attends to which of them at which block. Nothing of the references enters
the image's own batch.
"""

import math
from dataclasses import dataclass, replace

import torch

from ..host.attach import attach
from ..host.bank import bank_of
from ..host.blocks import attention_blocks, chosen_blocks, grid_at, unet_of
from ..host.content_keys import digest, weights_key
from ..host.messages import input_error, warn_user
from ..host.rows import COND, UNCOND
from ..host.seeded import seeded_noise
from ..host.technique import Technique
from ..host.when import Window
from .reference_branch import ReferenceBranch, Segment
from .reference_pass import caught_keys
from .reference_rows import count_of_pictures, rows_of

# Beyond this a weight only makes softmax one-hot (FreeCustom uses 1 to 3).
WEIGHT_LIMIT = 20.0
NOISES = ("fresh", "fixed")


def attach_mrsa(
    model,
    clip,
    vae,
    references,
    *,
    weight=3.0,
    blocks="published",
    custom_blocks="",
    style_fidelity=1.0,
    window=(0.0, 1.0),
    noise="fresh",
    seed=0,
    cache_mb=1024,
):
    """The MODEL with the references in its self-attention; the MODEL itself where nothing would change.

    references: tuple of References; weight: added to the logits of kept tokens, 0 is off; blocks: a choice of
    blocks.CHOICES; style_fidelity: share of plain attention on unconditional rows; window: (start, end) percent;
    noise: "fresh" (one draw per step) or "fixed" (one for all); cache_mb: budget of the bank across runs.
    Raises ValueError for inputs it cannot work with.
    """
    unet = unet_of(model, "Multi-Reference Self-Attention")
    for name, value in (("weight", weight), ("style_fidelity", style_fidelity)):
        if not math.isfinite(value):
            raise input_error(f"{name} is {value}; enter a number")
    window = Window(*window)
    levels = attention_blocks(unet)
    blocks = {block: levels[block] for block in chosen_blocks(unet, blocks, custom_blocks)}
    if not references or weight == 0:
        return model
    weight = max(-WEIGHT_LIMIT, min(WEIGHT_LIMIT, weight))
    rows = _with_tokens(rows_of(model, clip, vae, references, weight), blocks)
    if not rows:
        return model
    member = Member(
        rows=tuple(rows),
        pictures=count_of_pictures(references),
        blocks=blocks,
        style_fidelity=max(0.0, min(1.0, style_fidelity)),
        window=window,
        fixed_noise=noise == "fixed",
        seed=seed,
        cache_bytes=int(cache_mb * 2**20),
    )
    return attach(model, MRSA((member,)))


def reference_noise(seed, index, step, like):
    """Gaussian noise of one reference at one step: unit variance, shape of `like` (1, C, h, w), the same everywhere.

    Depends on (seed, index, step) alone, so that more references or evaluations change no other noise.
    """
    return seeded_noise(f"{seed}/{index}/{step}", like.shape).to(like)


@dataclass(frozen=True, eq=False)
class Member:
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
        return x if row.inputs.concat is None else torch.cat([x, row.inputs.concat], 1)


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


class NoiseLevel:
    """Keys and values of the references at the noise level that a run is at."""

    def __init__(self):
        self._sigma = None
        self._entries = {}
        # these hold for all noise levels of the run
        self._text_keys = {}
        self._bias = {}

    def enter(self, sigma):
        if sigma != self._sigma:
            self._sigma = sigma
            self._entries.clear()

    def bias(self, row, grid, device):
        """The bias (m,) of a reference's kept tokens on a grid."""
        key = row, grid, device
        if key not in self._bias:
            self._bias[key] = row.kept(grid)[1].to(device)
        return self._bias[key]

    def entries(self, call, number, member, chunk):
        """One {block: (k, v)} per reference of the member, on the device of the call, for the rows of one chunk.

        From this run, else from the bank, else by a reference pass over those that are missing.
        """
        text_keys = [self._text_key(call, row, chunk) for row in member.rows]
        # hooks on a conditioning may switch weights between two calls of one step
        common = call.x.device, weights_key(call.base.current_patcher), number
        keys = [(*common, index, text) for index, text in enumerate(text_keys)]
        missing = [index for index, key in enumerate(keys) if key not in self._entries]
        if missing:
            texts = {index: (*_text(call, member.rows[index], chunk), text_keys[index]) for index in missing}
            found = _from_bank_or_unet(call, member, texts)
            self._entries.update((keys[index], entry) for index, entry in found.items())
        return [self._entries[key] for key in keys]

    def _text_key(self, call, row, chunk):
        """A hash of context and y of a reference beside the rows of a chunk, found once per run where it can be."""
        key = chunk.uuid if chunk.role == UNCOND else row
        if key is None:
            return digest(*_text(call, row, chunk))
        if key not in self._text_keys:
            self._text_keys[key] = digest(*_text(call, row, chunk))
        return self._text_keys[key]


def _text(call, row, chunk):
    """Context and y of a reference: its own beside conditional rows, else those of the chunk."""
    if chunk.role == UNCOND:
        first = slice(chunk.start, chunk.start + 1)
        return call.context[first], call.y[first] if call.y is not None else None
    context, y = row.inputs.context, row.inputs.y
    return context.to(call.x), y.to(call.x) if y is not None else None


def _from_bank_or_unet(call, member, texts):
    """{index: {block: (k, v)}} for references given as {index: (context, y, hash)}."""
    inputs = {index: member.inputs(call, member.rows[index]) for index in texts}
    bank, keys, found = None, {}, {}
    if member.cache_bytes:
        bank = bank_of(call.base)
        common = weights_key(call.base.current_patcher), float(call.timesteps[0]), call.x.dtype, tuple(member.blocks)
        for index, (_, _, text) in texts.items():
            keys[index] = *common, digest(inputs[index]), text, member.rows[index].mask_key
            entry = bank.get(keys[index], call.run, call.x.device)
            if entry is not None:
                found[index] = entry

    groups = {}
    for index in (index for index in texts if index not in found):
        groups.setdefault((inputs[index].shape, texts[index][0].shape), []).append(index)
    for indices in groups.values():
        x = torch.cat([inputs[index] for index in indices]).to(call.x)
        context = torch.cat([texts[index][0] for index in indices])
        y = torch.cat([texts[index][1] for index in indices]) if call.y is not None else None
        rows = [member.rows[index] for index in indices]
        caught = caught_keys(call, x, context, y, list(member.blocks), lambda i, grid, rows=rows: rows[i].kept(grid)[0])
        for index, entry in zip(indices, caught, strict=True):
            found[index] = entry
            if bank is not None:
                bank.put(keys[index], entry, call.run, member.cache_bytes)
    return found


def _with_tokens(rows, blocks):
    """The rows whose masks leave a token somewhere; what falls away is said on the node."""
    left = []
    for row in rows:
        grids = {grid_at(level, row.latent_size) for level in blocks.values()}
        empty = sorted(grid for grid in grids if not len(row.kept(grid)[0]))
        if empty:
            sizes = ", ".join(f"{h}x{w}" for h, w in empty)
            warn_user(
                f"{row.view.label}: its mask keeps no token on the {sizes} grid, so it does not act there; "
                "draw it larger"
            )
        if len(empty) < len(grids):
            left.append(row)
    return left
