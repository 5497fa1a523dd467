"""The bank keeps whole runs within its budget."""

import gc
from threading import Thread

import torch
from support.concepts import conducted
from support.models import tiny_model
from support.references import picture, with_references

from pack.nodes.host import bank as bank_module
from pack.nodes.host.bank import Bank, bank_of
from pack.nodes.host.content_keys import digest

MB = 2**20


def entry(kib=256):
    k = torch.rand(kib * 1024 // 8)
    return {("output", 6, 0): (k, k.clone())}


def test_it_returns_what_was_put_in():
    bank, stored = Bank(), entry()
    bank.put("a", stored, 1, MB)
    got = bank.get("a", 2, "cpu")
    assert all(torch.equal(a, b) for a, b in zip(got["output", 6, 0], stored["output", 6, 0], strict=True))
    assert bank.get("b", 2, "cpu") is None and bank.bytes == 256 * 1024


def test_what_is_there_is_not_put_in_twice():
    bank, stored = Bank(), entry()
    for contents in (stored, entry()):
        bank.put("a", contents, 1, MB)
        assert bank.bytes == 256 * 1024
        assert torch.equal(bank.get("a", 1, "cpu")["output", 6, 0][0], stored["output", 6, 0][0])


def test_others_ask_while_one_stores(monkeypatch):
    """Of several cards each has a thread, and the way into main memory takes time."""
    bank, answers, real = Bank(), [], bank_module.FlatEntry
    bank.put("known", entry(), 1, MB)

    def slow(stored):
        thread = Thread(target=lambda: answers.append(bank.get("known", 2, "meta")), daemon=True)
        thread.start()
        thread.join(5)
        return real(stored)

    monkeypatch.setattr(bank_module, "FlatEntry", slow)
    bank.put("new", entry(), 1, MB)
    assert len(answers) == 1 and answers[0] is not None
    assert bank.get("new", 1, "meta") is not None


def test_the_least_recently_used_run_goes_as_a_whole():
    bank = Bank()
    for run in (1, 2):
        for step in range(2):
            bank.put((run, step), entry(), run, MB)
    bank.get((1, 0), 3, "cpu")
    bank.get((1, 1), 3, "cpu")
    # full: run 2 was used last by itself, run 1's entries by run 3
    bank.put("new", entry(), 4, MB)
    assert [bank.get(key, 5, "cpu") is not None for key in ((2, 0), (2, 1), (1, 0), (1, 1), "new")] == [
        False,
        False,
        True,
        True,
        True,
    ]


def test_what_a_run_has_read_is_its_own():
    """It makes no room at the cost of what it has read itself, whoever stored that."""
    bank = Bank()
    for run in (1, 2):
        for step in range(2):
            bank.put((run, step), entry(), run, MB)
    for step in range(2):
        bank.get((1, step), 3, "cpu")
    for step in range(4):
        bank.put((3, step), entry(), 3, MB)
    assert [key for key in ((1, 0), (1, 1), (2, 0), (2, 1)) if bank.get(key, 3, "cpu")] == [(1, 0), (1, 1)]
    assert [step for step in range(4) if bank.get((3, step), 3, "cpu")] == [0, 1]


def test_a_run_larger_than_the_budget_keeps_its_first_steps():
    bank = Bank()
    for step in range(10):
        bank.put(step, entry(), "run", MB)
    assert [step for step in range(10) if bank.get(step, "later", "cpu") is not None] == [0, 1, 2, 3]
    # so that a second run of the same length finds them, instead of always missing
    assert bank.bytes <= MB


def test_a_smaller_budget_makes_room():
    bank = Bank()
    for step in range(4):
        bank.put(step, entry(), "run", MB)
    bank.put("x", entry(), "later", MB // 2)
    assert bank.bytes <= MB // 2


def test_an_entry_larger_than_the_budget_is_not_kept():
    bank = Bank()
    bank.put("a", entry(512), 1, MB // 4)
    assert bank.get("a", 1, "cpu") is None and bank.bytes == 0


def test_it_goes_with_its_model():
    model = tiny_model()
    bank = bank_of(model.model)
    assert bank_of(model.model) is bank and bank_of(model.clone().model) is bank
    bank.put("a", entry(), 1, MB)
    count = len([o for o in gc.get_objects() if isinstance(o, Bank)])
    del model, bank
    gc.collect()
    assert len([o for o in gc.get_objects() if isinstance(o, Bank)]) < count


def test_digest_tells_contents_shapes_and_dtypes_apart():
    t = torch.rand(4, 6)
    assert digest(t, None) == digest(t.clone(), None)
    different = [
        digest(t),
        digest(t, None),
        digest(None, t),
        digest(t.reshape(6, 4)),
        digest(t.half()),
        digest(t.bfloat16()),
        digest(t + 1e-6),
        digest(t.T),
    ]
    assert len(set(different)) == len(different)


def test_a_smaller_budget_drops_the_oldest_runs():
    bank = Bank()
    for run in (1, 2, 3):
        bank.put(run, entry(), run, MB)
    bank.shrink(MB // 2)
    assert [run for run in (1, 2, 3) if bank.get(run, "later", "cpu") is not None] == [2, 3]
    assert bank.bytes == MB // 2
    bank.shrink(0)
    assert bank.bytes == 0


def test_a_budget_that_is_lowered_frees_memory_at_the_next_run():
    model = tiny_model("sd15")
    bank = bank_of(model.model)
    wanted = picture(with_references(model, cache_mb=64))
    full = bank.bytes
    assert full
    assert torch.equal(picture(with_references(model, cache_mb=0)), wanted) and bank.bytes == 0
    picture(with_references(model, cache_mb=64))
    picture(with_references(model, cache_mb=64, reference_seed=9))
    assert full < bank.bytes
    assert torch.equal(picture(with_references(model, cache_mb=1.01 * full / MB)), wanted)
    assert bank.bytes == full
    # a run with no bank of its own has no say
    picture(model)
    assert bank.bytes == full


def test_techniques_of_one_model_share_the_larger_budget(tmp_path, monkeypatch):
    monkeypatch.setattr("folder_paths.get_user_directory", lambda: str(tmp_path))
    model = tiny_model("sd15")
    both = conducted(with_references(model, cache_mb=0), layout=True, cache_mb=1, guidance_weight=0.01)
    picture(both, steps=1)
    kept = bank_of(model.model).bytes
    assert kept
    picture(both, steps=1)
    assert bank_of(model.model).bytes == kept
