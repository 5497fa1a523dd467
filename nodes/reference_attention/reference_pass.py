"""One forward of the UNet over reference pictures, for what the image's rows read of them."""

from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache

import comfy.model_management

from ..host.attention import plain_attention
from ..host.blocks import attention_blocks
from ..host.calls import clean_options, grid_of, live_unet, rows_together, with_replacements
from ..host.partial_pass import PassEnded, may_end_early
from ..host.text_rows import text_batch
from ..host.unet_inputs import bytes_of_call
from .block_outputs import moments, watched

_SECTIONS = ("input", "middle", "output")


@dataclass(frozen=True)
class Wanted:
    """What a reference pass has to find, in order of execution."""

    blocks: tuple = ()  # host keys of self-attentions: their keys and values
    places: tuple = ()  # (name, number) of blocks of the UNet: mean and deviation of their outputs

    @property
    def last(self):
        """The block or the place after which nothing is needed."""
        ends = [*self.blocks[-1:], *self.places[-1:]]
        return max(ends, key=lambda end: (_SECTIONS.index(end[0]), end[1], len(end) == 2))


def caught(call, x, texts, wanted, rows):
    """What the pass finds of each reference: one {block: (k (m, c), v (m, c), (h, w)), place: (mean, deviation)}.

    call: the UNet call in whose place and at whose noise level this runs; x (r, C, h, w): inputs of the UNet, one row
    per reference; texts: one TextRows of a single row for each; rows: one ReferenceRow for each, whose mask says which
    tokens are kept. Same weights, no patches of anyone, nothing computed after the last thing wanted. As many
    references at once as memory allows.
    """
    return in_turns(_one_pass, call, x, texts, wanted, rows)


def in_turns(one_pass, call, x, texts, wanted, rows):
    """What one_pass(call, x, texts, wanted, rows) finds of all references, of as many at once as memory allows."""
    found = []
    while len(found) < x.shape[0]:
        some = slice(len(found), len(found) + _rows_that_fit(call, x.shape[0] - len(found), x.shape))
        found += one_pass(call, x[some], texts[some], wanted, rows[some])
    return found


def kept_on(rows, device):
    """index(row, (h, w)): the tokens to keep of a ReferenceRow by its number, on a device, moved once for a pass."""
    return cache(lambda row, grid: rows[row].kept(grid)[0].to(device))


def frames_of(call):
    """As how many rows each reference runs: a film in which nothing moves, where a module looks along the frames."""
    return rows_together(call.base.current_patcher, call.chunks[0].stop - call.chunks[0].start)


def _one_pass(call, x, texts, wanted, rows):
    count, frames = x.shape[0], frames_of(call)
    found = [{} for _ in range(count)]
    unet = live_unet(call.base)
    batch = text_batch([text.spread(frames) for text in texts], attention_blocks(unet))
    index_of = kept_on(rows, x.device)

    def catching(block):
        def catch(q, k, v, options):
            grid = grid_of(options)
            for row in range(count):
                index = index_of(row, grid)
                # index_select copies: the rest of the layer's keys can be freed
                found[row][block] = *(t[row * frames].index_select(0, index) for t in (k, v)), grid
            if block == wanted.last:
                raise PassEnded
            return plain_attention(q, k, v, options)

        return lambda inner: catch

    def looking(place):
        def look(output):
            for row in range(count):
                found[row][place] = moments(output[row * frames], rows[row].share(tuple(output.shape[-2:])))
            if place == wanted.last:
                raise PassEnded

        return look

    clean = batch.read_by(_options_of(call, x, count), call.whole_timestep)
    clean = with_replacements(clean, {("attn1", block): catching(block) for block in wanted.blocks})
    timesteps = call.timesteps[:1].expand(count * frames)
    with may_end_early(), ExitStack() as watching:
        for place in wanted.places:
            watching.enter_context(watched(unet, place, looking(place)))
        call.unet(x.repeat_interleave(frames, 0), timesteps, batch.context, batch.y, None, clean)
    return found


def _options_of(call, x, count):
    return clean_options(call.moment.sigma, x.device, count, frames_of(call), call.run.schedule({}))


def _rows_that_fit(call, rows, shape):
    free, frames = comfy.model_management.get_free_memory(call.x.device), frames_of(call)
    while rows > 1 and bytes_of_call(call.base, rows * frames, shape) > free:
        rows = -(-rows // 2)
    return rows
