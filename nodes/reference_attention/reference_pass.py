"""One forward of the UNet over reference pictures, for the keys and values of its self-attentions."""

from functools import cache

import comfy.model_management

from ..host.attention import plain_attention
from ..host.blocks import attention_blocks
from ..host.calls import clean_options, grid_of, with_replacements
from ..host.partial_pass import PassEnded, may_end_early
from ..host.text_rows import text_batch


def caught_keys(call, x, texts, blocks, kept):
    """Keys and values of the reference rows' self-attentions: one {block: (k (m, c), v (m, c))} per row.

    call: the UNet call in whose place and at whose noise level this runs; x (r, C, h, w): inputs of the UNet, one row
    per reference; texts: one TextRows of a single row for each; blocks: host keys in order of execution; kept(row,
    (h, w)): the indices (m,) of the tokens to keep of a row. Same weights, no patches of anyone, nothing computed after
    the last block's keys and values. As many rows at once as memory allows.
    """
    caught = []
    while len(caught) < x.shape[0]:
        rows = slice(len(caught), len(caught) + _rows_that_fit(call, x.shape[0] - len(caught), x.shape))
        caught += _one_pass(call, x[rows], texts[rows], blocks, kept, rows.start)
    return caught


def _one_pass(call, x, texts, blocks, kept, first):
    rows = x.shape[0]
    caught = [{} for _ in range(rows)]
    batch = text_batch(texts, attention_blocks(call.base.diffusion_model))

    @cache
    def index_of(row, grid):
        return kept(first + row, grid).to(x.device)

    def catching(block):
        def catch(q, k, v, options):
            grid = grid_of(options)
            for row in range(rows):
                index = index_of(row, grid)
                # index_select copies: the rest of the layer's keys can be freed
                caught[row][block] = k[row].index_select(0, index), v[row].index_select(0, index)
            if block == blocks[-1]:
                raise PassEnded
            return plain_attention(q, k, v, options)

        return lambda inner: catch

    clean = batch.read_by(clean_options(call.timesteps.new_full((1,), call.moment.sigma)))
    clean = with_replacements(clean, {("attn1", block): catching(block) for block in blocks})
    with may_end_early():
        call.unet(x, call.timesteps[:1].expand(rows), batch.context, batch.y, None, clean)
    return caught


def _rows_that_fit(call, rows, shape):
    free = comfy.model_management.get_free_memory(call.x.device)
    while rows > 1 and call.base.memory_required([rows, *shape[1:]]) * 1.5 > free:
        rows = -(-rows // 2)
    return rows
