"""Cross-attention of an inpainting: outside of the hole a token reads the text's start alone (arXiv 2407.08019)."""

import torch

from ..host.attention import exact_attention
from ..host.calls import grid_of, heads_of, latent_size_of
from ..host.frames import frame_of
from ..host.picture_rows import pictures_shown
from ..host.rows import entry_of
from ..host.technique import Branch
from ..host.unet_inputs import processed


class MaskedText(Branch):
    """The branch at one cross-attention for one call of the UNet."""

    label = "PILOT"

    def __init__(self, hole, call, shown):
        self.hole, self.call, self.shown = hole, call, shown

    def __call__(self, q, k, v, options, chunk, plain):
        """Inside softmax(q k^T / sqrt(d)) v; outside its first term alone, p_0 v_0, nothing renormalised."""
        frame = frame_of(q, options, chunk, self.call.run)
        if frame is None:
            self.call.run.tell(
                "PILOT: the hole is not known to cross-attention where another node tiles the picture, merges its "
                "tokens or samples an unknown part of it; bypass that node"
            )
            return None
        pictures = self.shown.of_rows(len(q), options)
        if pictures is None:
            self.call.run.tell(
                "PILOT: another node samples parts of the batch, and nobody can tell which pictures, so the text is "
                "not kept to their holes there; bypass that node, or give one mask for all pictures"
            )
            return None
        place = latent_size_of(options), grid_of(options), frame, q.device
        inside, _, all_of_them = self.hole.kept(self.call.run, pictures, *place)
        if all_of_them:
            return None
        attention = exact_attention(options)
        first = only_first(v, self._length(chunk, k.shape[1]))
        return torch.where(inside[..., None], plain(), attention(q, k, first, heads_of(options)))

    def _length(self, chunk, tokens):
        """Tokens of a chunk's own text: beside a longer one the host repeats it, and its start with it."""
        # looked up once in a run, and not by every block of every call
        known, key = self.call.run.state("pilot texts", dict), (chunk.uuid, chunk.role)
        if key not in known:
            entry = entry_of(chunk, self.call.run.conds())
            known[key] = None if entry is None else processed(entry).context.shape[1]
        own = known[key] or tokens
        return own if tokens % own == 0 else tokens


class PicturesOfCall:
    """Which pictures the rows of one call of the UNet show: asked at every block, looked up once."""

    def __init__(self, hole, call):
        self._alike, self._call = len(hole.masks) == 1, call
        self._known = []

    def of_rows(self, rows, options):
        """The number of the picture of each of so many rows of a chunk; None where nobody can tell and it matters."""
        if self._alike:
            return range(rows)
        if not self._known:
            self._known.append(pictures_shown(self._call, options))
        pictures = self._known[0]
        return pictures if pictures is not None and len(pictures) == rows else None


def only_first(v, length):
    """Values (b, m, c) of which all but the first of a text of so many tokens, and of its repetitions, are 0."""
    first = torch.zeros_like(v)
    first[:, ::length] = v[:, ::length]
    return first
