"""What the bank keeps for a further picture: how it comes to a card, and what is said where not all fits."""

import logging

import pytest
import torch
from comfy.patcher_extension import WrappersMP
from support.devices import two_cards, with_cards, with_sent
from support.models import tiny_model
from support.reference_family import reference_only
from support.references import draw, half_mask, picture, references, with_references
from support.streams import streaming

from pack.nodes.host.bank import bank_of
from pack.nodes.reference_attention import entry_reader

STEPS = 2
# of all on the way up of SD1.5
BLOCKS, GRIDS = 9, (8, 4, 2)


@with_cards
def test_a_cached_step_waits_for_nothing(monkeypatch):
    """One copy per block at most, of keys and values alone, and no text; to the bit what a pass gives."""
    with two_cards(monkeypatch), streaming(monkeypatch) as host:
        model = tiny_model("sd15")
        settings = {"chain": references(3), "blocks": "all up", "style_fidelity": 0.5}
        wanted = picture(with_references(model, **settings, cache_mb=0), seed=1, steps=STEPS)
        ours = with_references(model, **settings, cache_mb=64)
        picture(ours, seed=0, steps=STEPS)
        assert host.pinned
        (found, sent), (_, plain) = (with_sent(picture, one, seed=1, steps=STEPS) for one in (ours, model))
        assert torch.equal(found, wanted) and host.waiting == 0
        for one in plain:
            sent.remove(one)
        # once in a run: the biases of the masks' tokens, on each grid
        assert len([size for size, waits in sent if waits]) <= 3 * len(GRIDS)
        copies = [size for size, waits in sent if not waits]
        assert STEPS <= len(copies) <= STEPS * BLOCKS
        assert sum(copies) == bank_of(model.model).bytes


def test_a_hit_makes_no_text(monkeypatch):
    model = tiny_model("sd15")
    ours = with_references(model, style_fidelity=0.5)
    picture(ours)
    made, real = [], entry_reader.text_rows
    monkeypatch.setattr(entry_reader, "text_rows", lambda *args: made.append(args[-1]) or real(*args))
    picture(ours, seed=1)
    # hashed once in a run, in main memory
    assert len(made) == 2 and not any(like.numel() for like in made)


def changing(model, amount):
    """Another pack, which adds to all texts in the later steps of a run."""

    def change(executor, x, t, c_concat=None, c_crossattn=None, *args, **kwargs):
        if float(t[0]) < 10:
            c_crossattn = c_crossattn + amount * draw(1, 7, 32, seed=9)
        return executor(x, t, c_concat, c_crossattn, *args, **kwargs)

    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "another pack", change)
    return model


@pytest.mark.parametrize(
    "attach",
    [reference_only, lambda model, **inputs: with_references(model, references(1), style_fidelity=0.5, **inputs)],
    ids=["Reference Only", "MRSA"],
)
def test_what_is_kept_is_told_by_the_text_that_another_pack_made(attach):
    model = tiny_model("sd15")
    kept = attach(model, cache_mb=64)
    plain = picture(changing(kept, 0.0))
    found = picture(changing(kept, 2.0))
    assert torch.equal(found, picture(changing(attach(model, cache_mb=0), 2.0)))
    assert not torch.equal(found, plain)


def test_what_does_not_fit_is_said(caplog):
    model = tiny_model("sd15")
    chain = references(2, masks=[half_mask(), half_mask()])
    whole = with_references(model, chain, cache_mb=64)
    caplog.set_level(logging.INFO)
    picture(whole, steps=2)
    used = bank_of(model.model).bytes
    need = -(-used // 2**20)
    assert f"all 2 steps with references are kept, {need} of cache_mb 64" in caplog.text
    assert "fit into" not in caplog.text
    model = tiny_model("sd15")
    for seed in range(2):
        caplog.clear()
        picture(with_references(model, chain, cache_mb=0.6 * used / 2**20), steps=2, seed=seed)
        assert f"1 of the 2 steps with references fit into cache_mb 0, all of them need {need}" in caplog.text
        assert caplog.text.count("fit into") == 1
    caplog.clear()
    picture(with_references(model, chain, cache_mb=0), steps=1)
    assert "cache_mb" not in caplog.text
