"""Entries of the bank on their way: in one piece, beside what a card computes, and never read before they are there."""

import gc

import pytest
import torch
from support.devices import two_cards, with_cards, with_sent
from support.streams import streaming

from pack.nodes.host.bank import Bank
from pack.nodes.host.flat_entries import Entry, FlatEntry, on_device

BLOCKS = [("output", number, 0) for number in range(6)]
MB = 2**20
FORMS = [
    ((5, 3), torch.float16),
    ((7,), torch.float32),
    ((0, 8), torch.bfloat16),
    ((3, 1), torch.float64),
    ((), torch.int64),
]


def drawn(number, shape, dtype):
    return torch.randn(shape, generator=torch.Generator().manual_seed(number)).mul(9).to(dtype)


def entry(seed=0, device="cpu"):
    """Blocks of tensors of several forms, with something beside them that is no tensor."""
    return {
        block: (*(drawn(seed + 10 * i + j, *form).to(device) for j, form in enumerate(FORMS[i % 2 :])), (4, i))
        for i, block in enumerate(BLOCKS)
    }


def same(one, other):
    assert list(one) == list(other)
    for block in other:
        for mine, wanted in zip(one[block], other[block], strict=True):
            if isinstance(wanted, torch.Tensor):
                assert mine.dtype == wanted.dtype and torch.equal(mine.cpu(), wanted.cpu())
            else:
                assert mine == wanted
    return True


def test_an_entry_is_one_piece_and_comes_back_as_it_was():
    stored = entry()
    # keys are views of a layer's tensor, as a split makes them
    stored[BLOCKS[0]] = *torch.arange(12.0).view(3, 4).T.split(2), (1, 1)
    flat = FlatEntry(stored)
    again = on_device({"a": flat}, torch.device("cpu"), 1)["a"]
    assert same(again, stored)
    least = sum(t.nbytes for several in stored.values() for t in several[:-1])
    assert least < Entry(stored).size == len(flat.piece) < least + 64 * 5 * len(BLOCKS)
    # in main memory nothing is copied again
    assert again[BLOCKS[1]][0].untyped_storage().data_ptr() == flat.piece.data_ptr()


def test_what_is_written_to_a_tensor_later_does_not_reach_the_bank():
    bank, stored = Bank(), entry()
    wanted = entry()
    bank.put("a", stored, 1, MB)
    stored[BLOCKS[0]][0].zero_()
    assert same(bank.get("a", 1, "cpu"), wanted)


def test_an_entry_of_nothing():
    bank = Bank()
    bank.put("a", {BLOCKS[0]: (torch.empty(0, 4), (1, 1))}, 1, MB)
    assert bank.get("a", 1, "cpu")[BLOCKS[0]][0].shape == (0, 4) and bank.bytes == 0


@pytest.fixture
def host(monkeypatch):
    with two_cards(monkeypatch) as found, streaming(monkeypatch) as host:
        host.cards = found
        yield host


@with_cards
@pytest.mark.parametrize(("count", "most", "copies"), [(1, 6, 6), (3, 6, 6), (3, 1, 3), (1, 4, 3), (4, 100, 24)])
def test_few_copies_that_nobody_waits_for(host, count, most, copies):
    bank, stored = Bank(), {number: entry(100 * number) for number in range(count)}
    for number, one in stored.items():
        bank.put(number, one, 1, MB)
    found, sent = with_sent(bank.fetch, range(count + 1), 1, host.cards[0], most)
    assert len(sent) == copies and not any(waits for _, waits in sent)
    assert sum(size for size, _ in sent) == bank.bytes
    # none has been made; each is made when its block is asked for, and those behind it later
    assert host.waiting == copies
    for one in found.values():
        assert [v.isnan().all() for v in one.form(BLOCKS[-1])[1:2]] == [True]
        assert not one[BLOCKS[0]][0].isnan().any()
    assert host.waiting < copies or most == 1
    assert all(same(found[number], one) for number, one in stored.items())
    assert host.waiting == 0


@with_cards
def test_early_blocks_of_all_entries_come_first(host):
    bank = Bank()
    for number in range(3):
        bank.put(number, entry(100 * number), 1, MB)
    found = bank.fetch(range(3), 1, host.cards[0], 6)
    before = host.waiting
    for one in found.values():
        assert one[BLOCKS[0]]
    assert before - host.waiting == 3


@with_cards
def test_from_a_card_to_everywhere(host):
    """Also while it is still on its way into main memory."""
    for target in ("cpu", *host.cards):
        bank = Bank()
        bank.put("a", entry(device=host.cards[0]), 1, MB)
        assert host.waiting
        assert same(bank.get("a", 1, target), entry())


@with_cards
def test_memory_is_unpinned_after_the_last_copy(host):
    bank = Bank()
    bank.put("a", entry(device=host.cards[0]), 1, MB)
    ((start, size),) = host.pinned.items()
    # pages of its own
    assert start % 4096 == size % 4096 == 0 and size >= bank.bytes
    found = bank.get("a", 2, host.cards[0])
    bank.shrink(0)
    gc.collect()
    assert not host.pinned and not host.torn
    assert same(found, entry())
    bank.put("b", entry(device=host.cards[0]), 1, MB)
    del bank
    gc.collect()
    assert not host.pinned and not host.torn
