"""Reference-only, in the form of diffusers' community pipelines: a whole picture's look and subject, by self-attention
that also reads it and by AdaIN of block outputs. The picture reads the image's own text.
"""

from contextlib import ExitStack

import torch

from ..host.attach import attach
from ..host.blocks import attention_blocks, channels_at, unet_of
from ..host.calls import live_unet
from ..host.messages import warn_user
from ..host.rows import COND
from ..references.reference_views import any_connected
from .block_outputs import adain, places_of, watched
from .mrsa import ReferenceAttention
from .reference_rows import rows_of, with_tokens


class ReferenceOnly(ReferenceAttention):
    """All Reference Only nodes of one MODEL: their tokens share one softmax, their statistics are averaged."""

    name = "reference_only"
    label = "Reference Only"
    # before all that runs passes of its own around a call: AdaIN is for the call's own rows
    order = 5

    def around(self, call, forward):
        """The forward with AdaIN at the places of the nodes; ControlNet's residuals come after it."""
        if not any(member.places for member in self.members):
            return forward
        moves = {}
        for member, chunk, rows, entries in self.read(call):
            for place in member.places:
                read = [(row.strength, *entry[place]) for row, entry in zip(member.rows, entries, strict=True)]
                share = 1.0 if chunk.role == COND else 1 - member.style_fidelity
                moves.setdefault(place, {}).setdefault(rows, []).extend((share, *one) for one in read)
        if not moves:
            return forward

        def moved(place):
            def move(output):
                output = output.clone()
                for rows, read in moves[place].items():
                    own = output[list(rows)]
                    output[list(rows)] = own + _share(read) * (adain(own, *_average(read)) - own)
                return output

            return move

        def run(*inputs):
            with ExitStack() as watching:
                for place in moves:
                    watching.enter_context(watched(live_unet(call.base), place, moved(place)))
                return forward(*inputs)

        return run


def _share(read):
    """How far outputs go to the references' statistics: [(share, strength, mean, deviation), ...] of all of them."""
    return sum(share * min(strength, 1.0) for share, strength, *_ in read) / len(read)


def _average(read):
    """(mean (C,), deviation (C,)) of several references, each counting by its strength."""
    strengths = torch.tensor([strength for _, strength, *_ in read])
    shares = strengths / strengths.sum()
    return tuple(sum(share * one[i] for share, one in zip(shares.tolist(), read, strict=True)) for i in (2, 3))


def attach_reference_only(model, vae, references, settings, attention, amount):
    """The MODEL with the references in self-attention and in the statistics of features.

    settings: ReferenceSettings; attention: share of the self-attentions, the deepest first; amount: of AdaIN, 0 to 2.
    The MODEL itself where nothing would change. Raises ValueError for inputs it cannot work with.
    """
    unet = unet_of(model, ReferenceOnly.label)
    blocks, places = deepest(unet, attention), places_of(unet, amount)
    if not any_connected(references):
        return model
    if not blocks and not places:
        warn_user("attention and adain are both 0, so this node does nothing")
        return model
    rows = rows_of(model, None, vae, references, 0.0, own_text=False)
    # statistics are of the whole picture; attention needs tokens, and says where there are none
    with_some = with_tokens(rows, blocks) if blocks else rows
    rows = rows if places else with_some
    if not rows:
        return model
    return attach(model, ReferenceOnly((settings.member(rows, references, blocks, places=places),)))


def deepest(unet, share):
    """{host key: level} of this share of the self-attentions, those of the most channels first, in order of execution.

    Of equal ones: the way down, the way up, the middle. The i-th of n, from 0, is among them if share > i / n.
    """
    levels = attention_blocks(unet)
    blocks = sorted(levels, key=lambda block: ("input", "output", "middle").index(block[0]))
    blocks.sort(key=lambda block: -channels_at(unet, block))
    chosen = {block for i, block in enumerate(blocks) if share > i / len(blocks)}
    return {block: level for block, level in levels.items() if block in chosen}
