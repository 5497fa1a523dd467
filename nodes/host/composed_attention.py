"""One block for one call of the UNet: how what stands there and what our techniques put there become one attention.

What stands there runs first, with all rows; then each of our branches adds (its attention - plain attention) to the
rows that it plans.
"""

from functools import cache, partial
from operator import getitem

import torch

from .attention import plain_attention
from .messages import log_warning
from .rows import coupled_chunks


class ComposedAttention:
    """The callable at one block for one call of the UNet: what stood there, and our branches."""

    def __init__(self, inner, branches, call):
        self.inner = inner
        self.branches = branches
        self.call = call

    def __call__(self, q, k, v, options):
        """The attention (b, n, c) of q (b, n, c) and k, v (rows, m, c), where b is a multiple of rows (tiles)."""
        standing = self.inner(q, k, v, options) if self.inner else None
        chunks, rows = self.call.chunks, self.call.x.shape[0]
        if k.shape[0] != rows:
            chunks, rows = coupled_chunks(options, k.shape[0]), k.shape[0]
        if not chunks or q.shape[0] % rows:
            self._leave_out("another patch changed the number of rows")
            return plain_attention(q, k, v, options) if standing is None else standing
        # HyperTile cuts q into tiles as further rows; the host's attention then reads k and v in as many strips
        tiles = q.shape[0] // rows
        k, v = (t.reshape(q.shape[0], -1, t.shape[-1]) for t in (k, v))
        if standing is not None and standing.shape != q.shape:
            self._leave_out("another patch returned an attention of another shape")
            return standing

        plain_of_all = plain_attention(q, k, v, options) if any(branch.adds for branch in self.branches) else None
        out = torch.empty_like(q)
        for chunk in chunks:
            own = slice(chunk.start * tiles, chunk.stop * tiles)
            mine = q[own], k[own], v[own], options
            plain = (
                cache(partial(plain_attention, *mine)) if plain_of_all is None else partial(getitem, plain_of_all, own)
            )
            ours = [o for o in (branch(*mine, chunk, plain) for branch in self.branches) if o is not None]
            out[own] = _composed(standing[own] if standing is not None else None, ours, plain)
        return out

    def _leave_out(self, reason):
        if self.call.run.once(reason):
            log_warning(f"{reason}; this pack's attention is skipped at its blocks")


def _composed(standing, ours, plain):
    if standing is None:
        if not ours:
            return plain()
        if len(ours) == 1:
            return ours[0]
        standing = plain()
    return standing + sum(o - plain() for o in ours)
