"""What it takes to bring the references of a step to the device: in one piece beside its computing, and one by one."""

import time
from functools import partial

import torch

from pack.nodes.host.bank import Bank

REFERENCES, COVERAGE = 3, 0.224
# (self-attentions, side of the picture / side of the grid, channels) of the published blocks
LEVELS = {"sd15": ((3, 16, 640), (3, 8, 320)), "sdxl": ((20, 32, 1280), (6, 16, 640))}


def measured(kind, device, size, turns):
    """Rows of the report, medians of some turns."""
    entries = [_entry(kind, size, device) for _ in range(REFERENCES)]
    blocks, wait = len(entries[0]), (torch.cuda.synchronize if device.type == "cuda" else lambda: None)
    total = sum(t.nbytes for entry in entries for several in entry.values() for t in several)
    bank, times = Bank(), {}

    def timed(way, work, waits=True):
        wait()
        start = time.perf_counter()
        found = work()
        if waits:
            wait()
        times.setdefault(way, []).append(time.perf_counter() - start)
        wait()
        return found

    for turn in range(turns + 1):
        keys = [(turn, number) for number in range(REFERENCES)]
        timed("into main memory", lambda keys=keys, turn=turn: _put(bank, keys, entries, turn, total + (1 << 20)))
        fetch = partial(bank.fetch, keys, turn, device, blocks)
        found = timed("to the device", fetch)
        timed("to the device, begun", fetch, waits=False)
        plain = [t.cpu() for entry in entries for several in entry.values() for t in several]
        timed("to the device, one by one", lambda plain=plain: [t.to(device) for t in plain])
        _check(found.values(), entries)
    rows = []
    for way, spent in times.items():
        seconds = sorted(spent[1:])[turns // 2] if turns else spent[0]
        rows.append({"case": f"{total / 1e6:.0f} MB", "way": way, "ms": 1000 * seconds, "GB/s": total / 1e9 / seconds})
    return rows


def _put(bank, keys, entries, run, budget):
    for key, entry in zip(keys, entries, strict=True):
        bank.put(key, entry, run, budget)


def _check(found, entries):
    for one, entry in zip(found, entries, strict=True):
        for block, several in entry.items():
            if not all(map(torch.equal, one[block], several)):
                raise RuntimeError(f"what came back from the bank at {block} is not what went in")


def _entry(kind, size, device):
    """Keys and values of one reference, in half precision."""
    found = {}
    for level, (count, step, channels) in enumerate(LEVELS[kind]):
        tokens = max(1, round(COVERAGE * (size // step) ** 2))
        for number in range(count):
            pair = tuple(torch.randn(tokens, channels, device=device).half() for _ in range(2))
            found["output", level, number] = pair
    return found
