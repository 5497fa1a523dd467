"""What image prompts keep for one sampling run: their tensors on the device, their phrases' keys, their shares."""

import torch

from ...kernels.image_prompt_attention import shared_weight
from ...kernels.masks import WHOLE, bilinear_resize
from ..host.blocks import attention_blocks, cross_attention
from ..host.content_keys import weights_key
from ..host.rows import COND


class ImageRun:
    """State of one run; all is made at first use and dropped with the run."""

    def __init__(self):
        self._made = {}
        self._phrase_keys = {}
        self._at = None
        self._shares = {}

    def layer(self, member, block, like):
        """The ImageLayer of a member at a block, on the device and in the dtype of `like`."""
        return self._once((member, block, like.device, like.dtype), lambda: member.layers[block].to(like))

    def scales(self, member, device):
        """What each object's part is multiplied by (r,): the node's scale times its own strength."""
        return self._once(("scales", member, device), lambda: member.scale * torch.tensor(member.strengths).to(device))

    def regions(self, member, place, device):
        """R (r, n) float32 at the tokens of a place; None where no reference of the member has a region.

        place: (grid, frame) of the tokens, None where they cannot be placed: regions are off there.
        """
        if place is None or not member.has_regions:
            return None
        return self._once(("regions", member, place, device), lambda: _regions_at(member, *place).to(device))

    def empty_weight(self, member, place, device):
        """What the tokens of the empty picture are multiplied by, broadcast to (b, 1, n)."""
        regions, scales = self.regions(member, place, device), self.scales(member, device)
        place = place if regions is not None else None
        return self._once(("empty", member, place, device), lambda: shared_weight(scales, regions).view(1, 1, -1))

    def enter(self, call, members):
        """Before a call of the UNet: the keys of the phrases of its conditional rows, by the text's own matrices."""
        self._at = weights_key(call.base.current_patcher)
        for member in members:
            if not member.needs_maps:
                continue
            chunks = [chunk for chunk in call.chunks if chunk.role == COND] if member.from_prompt else []
            for chunk in [None, *chunks]:
                key = self._phrase_key(member, chunk)
                if key not in self._phrase_keys or (chunk is not None and chunk.uuid is None):
                    self._phrase_keys[key] = _keys_at_all_blocks(call, member, chunk)

    def phrase_keys(self, member, block, chunk, like):
        """(1 or b, sum of L, c): the phrases' text keys at a block, for the rows of a chunk."""
        key = self._phrase_key(member, chunk)
        # rows that another pack has put in have no context of their own: their phrases stand alone
        at_block = self._phrase_keys[key if key in self._phrase_keys else self._phrase_key(member, None)]
        at_block[block] = at_block[block].to(like.device)
        return at_block[block]

    def _once(self, key, make):
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def _phrase_key(self, member, chunk):
        # hooks on a conditioning may switch the text's matrices between two calls of one step
        return member, self._at, (chunk.uuid, chunk.start) if chunk is not None else None

    def add_shares(self, member, shares, place):
        """Adds the objects' shares (b, r, n) at the tokens of a part of the result to the mean of this run."""
        if shares.is_meta:
            # FLOPs are counted on tensors without data
            return
        key = member, len(shares), *place
        total, count = self._shares.get(key, (0, 0))
        self._shares[key] = total + shares, count + 1

    def mean_shares(self, member, rows, size):
        """(rows, r, h, w) on the CPU: the mean of what was noted over layers and steps, None if nothing was.

        rows: the pictures of the batch; a single reference has one map for all of them. Other packs may run another
        number of rows, of which nobody knows the picture.
        """
        noted = {key[1:]: value for key, value in self._shares.items() if key[0] is member and key[1] in (1, rows)}
        if not noted:
            return None
        total = torch.zeros(rows, len(member.strengths), *size)
        weight = torch.zeros(*size)
        for (batch, grid, frame), (shares, count) in noted.items():
            shares = shares.float().cpu().unflatten(-1, grid)
            top, left, bottom, right = (round(edge * side) for edge, side in zip(frame, (*size, *size), strict=True))
            shown = bilinear_resize(shares.flatten(0, 1), (bottom - top, right - left), WHOLE).unflatten(0, (batch, -1))
            # one map for all images of the batch, where a single reference needs none of its own
            total[:, :, top:bottom, left:right] += shown.expand(rows, -1, -1, -1) if batch == 1 else shown
            weight[top:bottom, left:right] += count
        return total / weight.clamp(min=1)


def _regions_at(member, grid, frame):
    at_tokens = [
        torch.ones(1, *grid) if region is None else bilinear_resize(region[None], grid, frame)
        for region in member.regions
    ]
    return torch.cat(at_tokens).flatten(1)


def _keys_at_all_blocks(call, member, chunk):
    unet = call.base.diffusion_model
    context = None if chunk is None else call.context[chunk.rows]
    return {
        block: cross_attention(unet, block).to_k(member.phrase_rows(context, layer).to(call.context))
        for layer, block in enumerate(attention_blocks(unet))
    }
