"""One cross-attention that also reads pictures: what image prompts put at a block for one call."""

from ...kernels.image_prompt_attention import add_part, joint_attention, picture_attention, text_gate
from ...kernels.object_shares import equal_shares, object_shares
from ..host.calls import grid_of, heads_of
from ..host.frames import frame_of, regions_ignored
from ..host.rows import COND, UNCOND
from ..host.technique import Branch


class ImageBranch(Branch):
    """Cross-attention to the text plus, for each member of the technique, to its pictures."""

    adds = True

    def __init__(self, block, members, state, run):
        self.block = block
        self.members = members
        self.state = state
        self.run = run
        self._gates = {}

    @property
    def label(self):
        """What messages call the nodes whose pictures are read here."""
        return " and ".join(dict.fromkeys(member.label for member in self.members))

    def prepare(self, plain):
        """Finds the gates of all rows at once, (b, n) float32 for each member that has one."""
        layers = ((member, self.state.layer(member, self.block, plain)) for member in self.members)
        self._gates = {member: text_gate(plain, one.gate) for member, one in layers if one.gate is not None}

    def __call__(self, q, k, v, options, chunk, plain):
        if chunk.role not in (COND, UNCOND):
            return None
        out = plain.changeable()
        for member in self.members:
            gate = self._gates.get(member)
            self._add(out, member, q, options, chunk, None if gate is None else gate[plain.rows])
        return out

    def _add(self, out, member, q, options, chunk, gate):
        """Adds what a member's pictures give to the text attention `out`, in place; gate: (b, n) or None."""
        layer, state, heads = self.state.layer(member, self.block, q), self.state, heads_of(options)
        place = self._place(member, q, options, chunk)
        if chunk.role == UNCOND and member.share_empty:
            # all objects share the tokens of an empty picture there, and their weights sum to one: no map is needed
            value, weights = state.empty_weight(member, place, q.device)
            (part,) = picture_attention(q, layer.empty_k, layer.empty_v, [len(layer.empty_k)], heads=heads)
            add_part(out, part, _product(gate, weights), value)
            return

        regions = state.regions(member, place, q.device)
        k, v = (layer.k, layer.v) if chunk.role == COND else (layer.empty_k, layer.empty_v)
        if member.joint and len(member.lengths) > 1:
            log_regions, anywhere = (None, None) if regions is None else (regions.log(), regions.amax(0)[None])
            part, shares = joint_attention(q, k, v, member.lengths, heads=heads, log_regions=log_regions)
            add_part(out, part, _product(gate, anywhere))
            shares = _product(shares, anywhere)
        else:
            shares = self._shares(member, q, heads, chunk, regions)
            factors = _product(shares, None if gate is None else gate[:, None])
            parts = picture_attention(q, k, v, member.lengths, heads=heads)
            for part, factor in zip(parts, factors.unbind(1), strict=True):
                add_part(out, part, factor)
        if place is not None and chunk.role == COND:
            state.add_shares(member, shares, place)

    def _shares(self, member, q, heads, chunk, regions):
        """What each object's part counts, (b, r, n) or (1, r, n)."""
        if chunk.role == COND:
            return self._merge_weights(member, q, heads, chunk, regions)
        if regions is None:
            many = len(member.lengths)
            return self.state.constant(1 / many, (1, many, q.shape[1]), q.device)
        return equal_shares(regions)[None]

    def _merge_weights(self, member, q, heads, chunk, regions):
        """(b, r, n), or (1, 1, n) of a single object, which needs no map."""
        if len(member.lengths) == 1:
            return self.state.constant(1.0, (1, 1, q.shape[1]), q.device) if regions is None else regions[None]
        keys = self.state.phrase_keys(member, self.block, chunk, q)
        return object_shares(q, keys, member.counts, heads=heads, power=member.power, regions=regions)

    def _place(self, member, q, options, chunk):
        """(grid, frame) of the tokens: their rows and columns, and the part of the result that they show; None if
        nobody can tell.
        """
        frame = frame_of(q, options, chunk, self.run)
        if frame is not None:
            return grid_of(options), frame
        if member.has_regions:
            self.run.tell(regions_ignored(member.label))
        return None


def _product(one, two):
    """The product of two factors, None standing for 1."""
    return two if one is None else one if two is None else one * two
