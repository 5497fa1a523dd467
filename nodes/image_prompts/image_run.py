"""What image prompts keep for one sampling run: their tensors on the device, their phrases' keys, their shares."""

import torch

from ...kernels.masks import bilinear_resize, regions_at
from ...kernels.object_shares import shared_weight
from ...kernels.picture_parts import part_in_frame
from ..host.blocks import attention_blocks, cross_attention
from ..host.calls import live_unet
from ..host.content_keys import weights_key
from ..host.contexts import FIRST_TIMESTEP
from ..host.paired_rows import contexts_taken_apart, taken_apart
from ..host.read_contexts import contexts_read
from ..host.rows import COND
from ..host.text_rows import reads_one_text

# Under which name, with a member, a run keeps the uuids of prompts in which its phrases have no known places.
OTHER_TEXTS = "other texts"
# So many layers' shares wait to be added up.
HELD = 32


class ImageRun:
    """State of one run of one model; all is made at first use and dropped with the run."""

    def __init__(self):
        self._made = {}
        self._phrase_keys = {}
        self._at = None
        self._shares = {}

    def layer(self, member, block, like):
        """The ImageLayer of a member at a block, on the device and in the dtype of `like`; each object's values are
        multiplied by the node's scale and its own strength.
        """

        def make():
            lengths = torch.tensor(member.lengths)
            scales = _scales(member).repeat_interleave(lengths)
            return member.layers[block].weighted(scales, member.share_empty).to(like)

        return self._once((member, block, like.device, like.dtype), make)

    def constant(self, value, shape, device):
        """A float32 tensor of one value that nobody changes."""
        return self._once((value, shape, device), lambda: torch.full(shape, value, device=device))

    def regions(self, member, place, device):
        """R (r, n) float32 at the tokens of a place; None where no reference of the member has a region.

        place: (grid, frame) of the tokens, None where they cannot be placed: regions are off there.
        """
        if place is None or not member.has_regions:
            return None
        return self._once(
            ("regions", member, place, device), lambda: regions_at(member.regions, *place).flatten(1).to(device)
        )

    def empty_weight(self, member, place, device):
        """What the tokens of the empty picture are multiplied by: (number, one of each position (1, n) or None)."""
        regions = self.regions(member, place, device)
        if regions is None:
            return self._once(("empty", member), lambda: float(shared_weight(_scales(member)))), None

        def made():
            return shared_weight(_scales(member).to(device), regions)[None]

        return 1.0, self._once(("empty", member, place, device), made)

    def enter(self, call, members):
        """Before a call of the UNet: the keys of the phrases of its conditional rows, by the text's own matrices."""
        self._at = weights_key(call.base.current_patcher)
        for member in members:
            if not member.needs_maps:
                continue
            others = call.run.state((OTHER_TEXTS, member), set)
            chunks = [one for one in call.chunks if one.role == COND and one.uuid not in others]
            chunks = chunks if member.from_prompt else []
            for chunk in [None, *chunks]:
                key = self._phrase_key(member, chunk)
                same = chunk is None or (reads_one_text(chunk, call.run.conds()) and not call.rewritten)
                if key not in self._phrase_keys or not same:
                    self._phrase_keys[key] = _keys_at_all_blocks(call, member, chunk)

    def phrase_keys(self, member, block, chunk, like):
        """(1 or b, sum of L, c) float32: the phrases' text keys at a block, for the rows of a chunk."""
        key = self._phrase_key(member, chunk)
        # other texts, and rows that another pack has put in, which have no context of their own: phrases stand alone
        at_block = self._phrase_keys[key if key in self._phrase_keys else self._phrase_key(member, None)]
        return at_block[block].to(like.device)

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
        self._shares.setdefault((member, len(shares), *place), _Sum()).add(shares)

    def add_to(self, total, weight, member):
        """Adds what was noted of a member to `total` (rows, r, h, w), and how often to `weight` (h, w)."""
        rows, size = len(total), total.shape[-2:]
        for (one, batch, grid, frame), noted in self._shares.items():
            # other packs may run another number of rows, of which nobody knows the picture
            if one is not member or batch not in (1, rows):
                continue
            shares = noted.total().float().cpu().unflatten(-1, grid)
            part = part_in_frame(frame, size)
            shown = bilinear_resize(shares.flatten(0, 1), tuple(side.stop - side.start for side in part))
            shown = shown.unflatten(0, (batch, -1))
            # one map for all images of the batch, where a single reference needs none of its own
            total[(..., *part)] += shown.expand(rows, -1, -1, -1) if batch == 1 else shown
            weight[part] += noted.count


class _Sum:
    """A sum of tensors, and how many they were; they are added several at once, which a GPU does as fast as two."""

    def __init__(self):
        self.count = 0
        self._held = []

    def add(self, tensor):
        self.count += 1
        self._held.append(tensor)
        if len(self._held) > HELD:
            self._held = [self.total()]

    def total(self):
        return torch.stack(self._held).sum(0)


def mean_shares(runs, member, rows, size):
    """(rows, r, h, w) on the CPU: the mean of what was noted over layers, steps and models, None if nothing was.

    runs: an ImageRun for each model that ran; rows: the pictures of the batch.
    """
    # in double precision: the order of the models, which is chance, must not show
    total = torch.zeros(rows, len(member.strengths), *size, dtype=torch.float64)
    weight = torch.zeros(*size, dtype=torch.float64)
    for run in runs:
        run.add_to(total, weight, member)
    return (total / weight.clamp(min=1)).float() if weight.any() else None


def _scales(member):
    """What each object's part is multiplied by (r,): the node's scale times its own strength."""
    return member.scale * torch.tensor(member.strengths)


def _keys_at_all_blocks(call, member, chunk):
    unet, contexts = live_unet(call.base), _contexts_of_blocks(call, chunk)
    return {
        block: cross_attention(unet, block).to_k(member.phrase_rows(contexts(layer), layer).to(call.context)).float()
        for layer, block in enumerate(attention_blocks(unet))
    }


def _contexts_of_blocks(call, chunk):
    """layer -> the context (1 or b, m, D) whose keys the rows of a chunk read there; None for no chunk."""
    if chunk is None:
        return lambda layer: None
    layered = contexts_taken_apart(contexts_read(call, chunk, call.context))
    if layered is not None:
        # as phrases that stand alone, those that are made while sampling are read where it starts
        keys, _ = layered.at(FIRST_TIMESTEP)
        return lambda layer: keys[layer % len(keys)][None]
    context = taken_apart(call.context[chunk.rows])[0]
    # further calls may have another number of rows
    context = context[:1] if reads_one_text(chunk, call.run.conds()) else context
    return lambda layer: context
