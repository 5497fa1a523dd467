"""One block for one call of the UNet: how what stands there and what our techniques put there become one attention.

What stands there runs first, with all rows; then each of our branches adds (its attention - plain attention) to the
rows that it plans.
"""

import torch

from .attention import plain_attention
from .calls import block_of
from .left_out import left_out_of
from .plain_rows import PlainAttention
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
            self._leave_out(options, "changed the number of rows at some layers without listing them")
            return plain_attention(q, k, v, options) if standing is None else standing
        # HyperTile cuts q into tiles as further rows; the host's attention then reads k and v in as many strips
        tiles = q.shape[0] // rows
        k, v = (t.reshape(q.shape[0], -1, t.shape[-1]) for t in (k, v))
        if standing is not None and standing.shape != q.shape:
            self._leave_out(options, "returned an attention of another shape at some layers")
            return standing

        at_once, merges = (any(getattr(branch, name) for branch in self.branches) for name in ("adds", "merges"))
        of_all = PlainAttention(q, k, v, options, at_once, merges)
        for branch in self.branches:
            if branch.adds:
                branch.prepare(of_all.whole)
        # unless something stands here, what nobody changes is in its place already
        in_place = standing is None and of_all.free
        out = of_all.whole if in_place else torch.empty_like(q)
        left_out, block = left_out_of(self.call.run), block_of(options)
        for chunk in chunks:
            own = slice(chunk.start * tiles, chunk.stop * tiles)
            serving = [branch for branch in self.branches if left_out.serves((branch.label, block), chunk)]
            plain = of_all.of(own, alone=standing is None and len(serving) == 1)
            ours = [
                o
                for o in (branch(q[own], k[own], v[own], options, chunk, plain) for branch in serving)
                if o is not None
            ]
            made = _composed(standing[own] if standing is not None else None, ours, plain)
            if not (in_place and plain.is_own(made)):
                out[own] = made
        return out

    def _leave_out(self, options, reason):
        run = self.call.run
        for label in dict.fromkeys(branch.label for branch in self.branches):
            left_out_of(run).note((label, block_of(options)), self.call.chunks)
            run.tell(f"{label}: another node {reason}, so {label} is left out there; bypass one of the two")


def _composed(standing, ours, plain):
    if standing is None:
        if not ours:
            return plain()
        if len(ours) == 1:
            return ours[0]
        standing = plain()
    return standing + sum(o - plain() for o in ours)
