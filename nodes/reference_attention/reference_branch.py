"""One self-attention of the image's rows that also reads references: what stands at a block for one call."""

from collections import defaultdict
from dataclasses import dataclass

import torch

from ...kernels.merged_attention import merged_attention
from ...kernels.reference_attention import multi_reference_attention
from ..host.attention import exact_attention, plain_attention
from ..host.blocks import self_attention
from ..host.calls import block_of, grid_of, heads_of, live_unet
from ..host.flat_entries import Entry
from ..host.frames import frame_of, regions_ignored
from ..host.rows import COND
from ..host.technique import Branch
from .reference_rows import ReferenceRow

# What becomes of references: all of them and the image's own tokens in one softmax; for each token the one that changes
# it most (BootPIG); or they take the place of the image's own tokens, all alike (VisCtrl).
JOINT, STRONGEST, REPLACE = "joint", "strongest", "replace"


@dataclass(frozen=True, eq=False)
class Segment:
    """The kept tokens of one reference at one block."""

    row: ReferenceRow
    entry: Entry
    block: tuple
    uniform_bias: float | None  # the bias where all tokens have the same, else None
    bias: torch.Tensor  # (m,), float32, added to the logit
    style_fidelity: float
    joining: str = JOINT

    @property
    def k(self):
        """(m, c)"""
        return self.entry[self.block][0]

    @property
    def v(self):
        """(m, c)"""
        return self.entry[self.block][1]

    @property
    def region(self):
        """(H, W) in 0..1 over the result; None: everywhere."""
        return self.row.view.region


class ReferenceBranch(Branch):
    """Self-attention with references at one block, of the technique that is called `label`.

    segments: {chunk: {rows of the batch: [Segment, ...]}}, what these rows may look at; reader: their EntryReader.
    """

    def __init__(self, label, segments, call, reader):
        self.label = label
        self.segments = segments = {chunk: disjoint(by_rows) for chunk, by_rows in segments.items()}
        self.base, self.run, self.reader = call.base, call.run, reader
        # a grey mask gives each token a bias of its own, which takes channels
        one_group = all(len(by_rows) == 1 for by_rows in segments.values())
        self.merges = one_group and all(segment.uniform_bias is not None for segment in self._segments())

    def __call__(self, q, k, v, options, chunk, plain):
        by_rows = self.segments.get(chunk)
        if not by_rows:
            return None
        region_frame = frame_of(q, options, chunk, self.run)
        if region_frame is None and self._has_regions():
            self.run.tell(regions_ignored(self.label))
        if len(by_rows) == 1:
            (segments,) = by_rows.values()
            return self._of_rows(q, k, v, options, chunk, plain, segments, region_frame)
        # other packs may have cut each row into tiles, which follow each other
        tiles = torch.arange(len(q), device=q.device).view(chunk.stop - chunk.start, -1)
        out = torch.empty_like(q)
        for rows, segments in by_rows.items():
            own = tiles[[row - chunk.start for row in rows]].flatten()
            mine = q[own], k[own], v[own], options, chunk, plain.picked(own)
            out[own] = self._of_rows(*mine, segments, region_frame)
        return out

    def _of_rows(self, q, k, v, options, chunk, plain, segments, region_frame):
        def attend(some, last=False):
            return self._attend(q, k, v, options, plain, some, region_frame, last)

        if chunk.role == COND:
            return attend(segments, last=True)

        # unconditional rows: (1 - f)·MRSA + f·plain, one attention per fidelity
        by_fidelity = defaultdict(list)
        for segment in segments:
            by_fidelity[segment.style_fidelity].append(segment)
        if set(by_fidelity) == {0.0}:
            return attend(segments, last=True)
        changed = sum((1 - fidelity) * (attend(some) - plain()) for fidelity, some in by_fidelity.items())
        return plain() + changed

    def _attend(self, q, k, v, options, plain, segments, region_frame, last):
        """What some segments make of the rows: each way of joining adds what it changes; last: nobody needs plain
        attention afterwards.
        """

        def joint(some, last=False):
            if self.merges and plain.kernel is not None:
                return self._merged(q, options, plain, some, region_frame, last)
            region = self._regions(some, grid_of(options), region_frame, q.device)
            refs = (_together([getattr(one, name) for one in some]) for name in ("k", "v", "bias"))
            more = {"heads": heads_of(options), "region": region, "attention": exact_attention(options)}
            return multi_reference_attention(q, k, v, *refs, **more)

        by_joining = defaultdict(list)
        for segment in segments:
            by_joining[segment.joining].append(segment)
        made = []
        for joining, some in by_joining.items():
            if joining == STRONGEST and len(some) > 1:
                project = self_attention(live_unet(self.base), block_of(options)).to_out
                made.append(strongest([joint([one]) for one in some], plain(), project))
            elif joining == REPLACE:
                theirs = (torch.cat([getattr(one, name) for one in some]).expand(len(q), -1, -1) for name in ("k", "v"))
                made.append(plain_attention(q, *theirs, options))
            else:
                made.append(joint(some, last and len(by_joining) == 1))
        return made[0] if len(made) == 1 else plain() + sum(one - plain() for one in made)

    def _merged(self, q, options, plain, segments, frame, last):
        """As `multi_reference_attention`, from plain attention; those of one bias and one region are read at once."""
        alike = defaultdict(list)
        for segment in segments:
            region = segment.region if frame is not None else None
            alike[segment.uniform_bias, id(region)].append(segment)
        groups = []
        for (bias, _), some in alike.items():
            region = None
            if frame is not None and some[0].region is not None:
                region = self.reader.region(some[0].row, grid_of(options), frame, q.device)
            groups.append((*(_together([getattr(one, name) for one in some]) for name in ("k", "v")), bias, region))
        own, lse = plain.with_lse()
        own = plain.changeable() if last else own
        more = {"heads": heads_of(options), "out": own if last else None}
        merged = merged_attention(plain.kernel, q, own, lse, groups, **more)
        # the tensor itself tells that the result is in its place
        return own if last else merged

    def _regions(self, segments, grid, frame, device):
        """The regions of segments as the kernel takes them; None where none has one, or none is known here."""
        if frame is None or all(segment.region is None for segment in segments):
            return None
        at_query = torch.stack([self.reader.region(segment.row, grid, frame, device) for segment in segments], 1)
        return at_query, self.reader.segments_of_tokens(tuple(len(segment.k) for segment in segments), device)

    def _has_regions(self):
        return any(segment.region is not None for segment in self._segments())

    def _segments(self):
        return (segment for by_rows in self.segments.values() for group in by_rows.values() for segment in group)


def disjoint(by_rows):
    """{rows: [Segment, ...]} in which each row stands once, with the segments of all groups that hold it.

    Nodes differ in which rows they take together: those of one text, or all.
    """
    if len(by_rows) == 1:
        return by_rows
    of_row = defaultdict(list)
    for rows, segments in by_rows.items():
        for row in rows:
            of_row[row] += segments
    alike = defaultdict(list)
    for row, segments in of_row.items():
        alike[tuple(segments)].append(row)
    return {tuple(rows): list(segments) for segments, rows in alike.items()}


def _together(tensors):
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors)


def strongest(made, plain, project):
    """For each token that attention (b, n, c) of several whose result differs most from plain, behind the block's own
    projection (BootPIG's published code; the paper averages).
    """
    base = project(plain)
    change = torch.stack([(project(one) - base).norm(dim=-1) for one in made])
    chosen = change.argmax(0)[None, ..., None].expand(1, *plain.shape)
    return torch.stack(made).gather(0, chosen)[0]
