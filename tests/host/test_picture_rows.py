"""Which pictures of a batch the rows of a call show: said by those who sample windows, or told by the rows."""

from types import SimpleNamespace

import pytest
import torch
from support.models import tiny_model
from support.references import draw

from pack.nodes.host.picture_rows import pictures_shown
from pack.nodes.host.rows import Chunk
from pack.nodes.host.when import Moment

SIGMA = 5.0


@pytest.fixture(scope="module")
def base():
    return tiny_model().model


@pytest.fixture(scope="module")
def latents():
    return SIGMA * draw(4, 4, 8, 8)


def shown(base, latents, rows, options=None, change=1.0, known=True):
    """What is found for a call of both halves of CFG with these rows of a batch of four."""
    x = change * latents[rows] / (1 + SIGMA**2) ** 0.5
    call = SimpleNamespace(
        x=torch.cat([x, x]),
        base=base,
        run=SimpleNamespace(shape=(4, 4, 8, 8), latents=latents if known else None),
        moment=Moment(SIGMA, 0, SIGMA),
        chunks=(Chunk(0, len(rows), "cond"), Chunk(len(rows), 2 * len(rows), "uncond")),
    )
    return pictures_shown(call, options or {})


def window(indices, dim=0, **more):
    return {"context_window": SimpleNamespace(dim=dim, index_list=indices, **more)}


def test_rows_tell_which_they_are(base, latents):
    for rows in ([3], [2, 0], [1, 2, 3], [0, 1, 2, 3]):
        assert shown(base, latents, rows) == rows


def test_windows_say_which_they_are(base, latents):
    # nobody could tell it from these rows
    assert shown(base, latents, [0, 1], window([2, 3]), change=3.0) == [2, 3]
    assert shown(base, latents, [0, 1, 2], window([2, 3], causal_anchor_index=1), change=3.0) == [1, 2, 3]
    assert shown(base, latents, [0, 1], {"ad_params": {"sub_idxs": [3, 1]}}, change=3.0) == [3, 1]


def test_a_window_of_an_earlier_call_or_over_the_width_says_nothing_of_rows(base, latents):
    assert shown(base, latents, [0, 1, 2, 3], window([2, 3])) == [0, 1, 2, 3]
    assert shown(base, latents, [1, 3], window([0, 1], dim=3)) == [1, 3]
    assert shown(base, latents, [0, 1, 2, 3], {"ad_params": {"sub_idxs": None}}) == [0, 1, 2, 3]


def test_changed_rows_cannot_be_told(base, latents):
    assert shown(base, latents, [0, 1], change=1.1) is None
    assert shown(base, latents, [0, 1], known=False) is None
    # more rows than there are pictures
    assert shown(base, latents, [0, 1, 2, 3, 0], change=1.1) is None
