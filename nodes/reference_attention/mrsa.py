"""References in the self-attention of a MODEL: the engine of MRSA (FreeCustom, arXiv 2405.13870) and its relatives.

At each noise level a reference pass catches the references' keys and values at the chosen self-attentions (the bank);
the plan says which chunk of the image's rows attends to which of them at which block. Nothing of the references enters
the image's own batch.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from ..host.content_keys import weights_key
from ..host.frames import tell_of_stretch
from ..host.rows import COND
from ..host.seeded import seeded_noise
from ..host.technique import Technique
from ..host.when import Window, in_main_memory, unet_timestep, whole_timestep
from ..inversion.inversion import level_at
from ..inversion.inversion_cache import REFERENCE_FILES
from ..inversion.kept_inversions import inversion_of
from .entry_reader import EntryReader
from .kept_steps import tell_of_kept
from .reference_branch import JOINT, ReferenceBranch, Segment
from .reference_pass import Wanted

# Where the noise of references comes from: a draw per step, one for all steps, or an inversion of the picture.
NOISES = ("fresh", "fixed", "inverted")


def reference_noise(seed, index, step, like):
    """Gaussian noise of one reference at one step: unit variance, shape of `like` (1, C, h, w), the same everywhere.

    step: the model's timestep, a whole number, at which the sampler's step begins. Depends on (seed, index, step)
    alone, so that more references or evaluations change no other noise, and a run in parts has that of a whole one.
    """
    return seeded_noise(f"{seed}/{index}/{step}", like.shape).to(like)


@dataclass(frozen=True, eq=False)
class ReferenceMember:
    """What one node adds to a MODEL: its references, and how they are read."""

    rows: tuple
    pictures: int  # in its chain, those that are off included
    blocks: dict  # {host key: level}, in order of execution
    style_fidelity: float  # share of plain attention on unconditional rows
    window: Window
    noise: str  # one of NOISES
    seed: int
    cache_bytes: int  # of the bank in RAM, and of inverted pictures on disk
    # what references read beside rows of the prompt: their own prompts, or the text of those rows
    own_text: bool = True
    # what becomes of a reference's attention and the image's own: JOINT, STRONGEST or REPLACE
    joining: str = JOINT
    # the MODEL whose UNet reads the references, where it is another one
    other: object = None
    places: tuple = ()  # (name, number) of the blocks whose outputs take the references' statistics
    # pictures of the nodes before this one: their noises are numbered on, as in one chain
    first: int = 0

    @cached_property
    def wanted(self):
        """What a reference pass has to find."""
        return Wanted(tuple(self.blocks), self.places)

    def reads(self, chunk):
        """Unconditional rows at style_fidelity 1 stay plain, and cost nothing."""
        return chunk.reading.references and (chunk.role == COND or self.style_fidelity < 1)

    def reads_own_text(self, chunk):
        """Whether its references read their own prompts beside the rows of a chunk, else the text of those rows.

        A UNet of its own has learnt with captions alone.
        """
        return self.own_text and (chunk.role == COND or self.other is not None)

    def inputs(self, call, row, shift=0):
        """UNet input (1, C, h, w) of a reference at the noise level of this call, on the CPU in float32.

        shift: timesteps by which it is noisier than the call.
        """
        sampling = in_main_memory(call.base.model_sampling)
        level = shifted_level(sampling, call.moment.sigma, shift)
        if self.noise == "inverted":
            x = self.reference_inversion(call, row).at(unet_timestep(level, sampling))
        else:
            step = 0 if self.noise == "fixed" else whole_timestep(call.moment.step_sigma, sampling)
            noise = reference_noise(self.seed, self.first + row.index, step, row.latent)
            sigma = torch.tensor([level])
            x = sampling.calculate_input(sigma, sampling.noise_scaling(sigma, noise, row.latent))
        return row.inputs.beside(x, call.x.shape[1], row.latent)

    def reference_inversion(self, call, row):
        """The Inversion of a reference at the noise levels of the run."""

        def make():
            latent = row.latent.to(call.x.device)
            # of a whole run, also where this one is its first part
            progress = call.run.progress(call.base.model_sampling)
            levels = progress.completed(call.run.schedule({}) or [call.moment.sigma])
            return inversion_of(call.base, latent, row.text, 0, levels, REFERENCE_FILES, self.cache_bytes)

        # hooks on a conditioning may switch weights between two calls of one step, and each has a path of its own
        return call.run.state(("inversion", row, weights_key(call.base.current_patcher)), make, call.base)


def shifted_level(sampling, sigma, shift):
    """The noise level that lies so many timesteps above another, a number; the first and the last timestep end it."""
    if not shift:
        return sigma
    sampling = in_main_memory(sampling)
    timestep = whole_timestep(sigma, sampling)
    return sigma * level_at(sampling, min(max(timestep + shift, 0), 999)) / level_at(sampling, timestep)


class ReferenceAttention(Technique):
    """All nodes of one kind on one MODEL: their references share one softmax."""

    def __init__(self, members):
        self.members = members

    def joined_by(self, later):
        first = sum(member.pictures for member in self.members)
        added = tuple(replace(member, first=first + member.first) for member in later.members)
        return type(self)(self.members + added)

    @property
    def cache_bytes(self):
        return max(member.cache_bytes for member in self.members)

    def extra_rows(self, noise_shape):
        area = math.prod(noise_shape[2:])
        return math.ceil(sum(math.prod(row.latent_size) for member in self.members for row in member.rows) / area)

    def models(self):
        others = [member.other for member in self.members if member.other is not None]
        texts = (row.inputs.contexts for member in self.members for row in member.rows)
        return others + [model for contexts in texts if contexts is not None for model in contexts.models]

    def begin(self, run):
        regions = [row.view.region for member in self.members for row in member.rows]
        tell_of_stretch(run, self.label, "a region", regions)

    def plan(self, call):
        segments, reader = {}, self.reader(call)
        for member, chunk, rows, entries in self.read(call):
            for row, entry in zip(member.rows, entries, strict=True):
                for block, segment in _segments(reader, member, row, entry):
                    segments.setdefault(block, {}).setdefault(chunk, {}).setdefault(rows, []).append(segment)
        return {("attn1", block): ReferenceBranch(self.label, of, call, reader) for block, of in segments.items()}

    def reader(self, call):
        """The EntryReader of a call's model."""
        return call.run.state(self.name, EntryReader, call.base)

    def read(self, call):
        """(member, chunk, rows of the chunk, what they read: one Entry per reference of the member) of one call."""
        reader = self.reader(call)
        reader.enter(call.moment.sigma)
        asking = [
            (number, member, chunk)
            for number, member in enumerate(self.members)
            if member.window.holds(call.moment, call.base.model_sampling)
            for chunk in filter(member.reads, call.chunks)
        ]
        return reader.read(call, asking)

    def finished(self, run, latents):
        tell_of_kept(run, self.label, [reader.kept for reader in run.states(self.name)], self.cache_bytes)


class MRSA(ReferenceAttention):
    """Multi-Reference Self-Attention."""

    name = "mrsa"
    label = "Multi-Reference Self-Attention"
    order = 40


def _segments(reader, member, row, entry):
    """(block, Segment) for each block at which a reference's mask keeps a token."""
    for block in member.blocks:
        k, _, grid = entry.form(block)
        if len(k):
            bias = row.uniform_bias(grid), reader.bias(row, grid, k.device)
            yield block, Segment(row, entry, block, *bias, member.style_fidelity, member.joining)
