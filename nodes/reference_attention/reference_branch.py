"""One self-attention of the image's rows that also reads references: what MRSA puts at a block for one call."""

from collections import defaultdict
from dataclasses import dataclass

import torch

from ...kernels.masks import nearest_resize
from ...kernels.reference_attention import multi_reference_attention
from ..host.attention import exact_attention
from ..host.calls import grid_of, heads_of
from ..host.frames import frame_of
from ..host.messages import log_warning
from ..host.rows import COND
from .reference_rows import ReferenceRow


@dataclass(frozen=True, eq=False)
class Segment:
    """The kept tokens of one reference at one block."""

    row: ReferenceRow
    k: torch.Tensor  # (m, c)
    v: torch.Tensor  # (m, c)
    bias: torch.Tensor  # (m,), float32, added to the logit
    style_fidelity: float

    @property
    def region(self):
        """(H, W) in 0..1 over the result; None: everywhere."""
        return self.row.view.region


class ReferenceBranch:
    """Multi-reference self-attention at one block; `segments` holds, per chunk, what its rows may look at."""

    def __init__(self, segments, run):
        self.segments = segments
        self.run = run

    adds = False

    def __call__(self, q, k, v, options, chunk, plain):
        segments = self.segments.get(chunk)
        if not segments:
            return None
        region_frame = frame_of(q, options, chunk, self.run)
        if region_frame is None and self._has_regions() and self.run.once("regions"):
            log_warning(
                "MRSA: regions of references are ignored where another patch tiles the picture, merges its "
                "tokens or samples an unknown part of it"
            )
        if chunk.role == COND:
            return self._attend(q, k, v, options, segments, region_frame)

        # unconditional rows: (1 - f)·MRSA + f·plain, one joint attention per fidelity
        by_fidelity = defaultdict(list)
        for segment in segments:
            by_fidelity[segment.style_fidelity].append(segment)
        if set(by_fidelity) == {0.0}:
            return self._attend(q, k, v, options, segments, region_frame)
        return plain() + sum(
            (1 - fidelity) * (self._attend(q, k, v, options, group, region_frame) - plain())
            for fidelity, group in by_fidelity.items()
        )

    def _attend(self, q, k, v, options, segments, region_frame):
        grid = grid_of(options)
        region = None
        if region_frame is not None and any(segment.region is not None for segment in segments):
            at_query = torch.stack([_log_region(segment.region, grid, region_frame) for segment in segments], 1)
            lengths = torch.tensor([len(segment.k) for segment in segments])
            of_token = torch.arange(len(segments)).repeat_interleave(lengths)
            region = at_query.to(q.device), of_token.to(q.device)
        return multi_reference_attention(
            q,
            k,
            v,
            torch.cat([segment.k for segment in segments]),
            torch.cat([segment.v for segment in segments]),
            torch.cat([segment.bias for segment in segments]),
            heads=heads_of(options),
            region=region,
            attention=exact_attention(options),
        )

    def _has_regions(self):
        return any(segment.region is not None for group in self.segments.values() for segment in group)


def _log_region(region, grid, frame):
    if region is None:
        return torch.zeros(grid[0] * grid[1])
    return nearest_resize(region, grid, frame).flatten().log()
