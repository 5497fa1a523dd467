"""Pickles that hold objects: tensors and plain values come out, nothing runs, and what is too much is refused soon."""

import io
import pickle
import resource
import struct
import sys
import time
import zipfile
from collections import OrderedDict, defaultdict

import pytest
import torch
from safetensors.torch import save_file
from support.harmful import Harmful

from pack.nodes.files.safe_files import read_contents


class Network(torch.nn.Module):
    """With parameters, a buffer, a plain tensor and modules inside."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LayerNorm(3))
        self.register_buffer("held", torch.ones(4))
        self.w = torch.arange(6.0).view(2, 3)
        self.note = "not a tensor"


class Node:
    """As omegaconf keeps its contents."""

    def __init__(self, **state):
        self.__dict__.update(state)


def saved(path, content):
    torch.save(content, path)
    return path


def test_modules_are_their_tensors_by_dotted_names(tmp_path):
    with torch.inference_mode(False):
        network = Network()
    found = read_contents(saved(tmp_path / "x.pt", {"encoder": network, "step": 3}))
    assert found["step"] == 3
    wanted = {**network.state_dict(), "w": network.w}
    assert found["encoder"].keys() == wanted.keys()
    assert all(torch.equal(found["encoder"][name], tensor) for name, tensor in wanted.items())


def test_plain_values_come_out_as_they_are(tmp_path):
    content = OrderedDict(
        a=[1, 2.5, "three", None, True],
        b={"c": (torch.ones(2), torch.zeros(1).half())},
        d=defaultdict(list, {"e": [5]}),
    )
    content["f"] = torch.nn.ParameterDict({"*": torch.nn.Parameter(torch.ones(2, 3))})
    content["g"] = Node(_content=[Node(_val="teddy"), Node(_val=7)], _metadata=Node(other=1))
    content["h"] = {1, 2}
    found = read_contents(saved(tmp_path / "x.bin", content))
    assert found["a"] == [1, 2.5, "three", None, True] and found["d"] == {"e": [5]}
    assert torch.equal(found["b"]["c"][0], torch.ones(2)) and found["b"]["c"][1].dtype == torch.float16
    assert found["g"] == ["teddy", 7] and sorted(found["h"]) == [1, 2]
    assert torch.equal(found["f"]["*"], torch.ones(2, 3))


def test_views_share_their_storage(tmp_path):
    row = torch.randn(1, 8)
    found = read_contents(saved(tmp_path / "x.pt", {"table": row.expand(50_000, 8), "row": row[:, 2:5]}))
    assert torch.equal(found["table"][49_999], row[0]) and torch.equal(found["row"], row[:, 2:5])
    assert found["table"].untyped_storage().nbytes() == 32


def test_safetensors_and_bare_pickles_of_tensors_are_read(tmp_path):
    save_file({"a.b": torch.ones(2)}, tmp_path / "x.safetensors")
    assert torch.equal(read_contents(tmp_path / "x.safetensors")["a.b"], torch.ones(2))
    torch.save({"a": {"b": torch.ones(2)}}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(read_contents(tmp_path / "x.pt")["a"]["b"], torch.ones(2))
    with torch.inference_mode(False):
        torch.save({"a": Network()}, tmp_path / "y.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match="is not safe: it asks for .*; nothing in it was run; get a safetensors copy"):
        read_contents(tmp_path / "y.pt")


def test_nothing_runs(tmp_path):
    found = read_contents(saved(tmp_path / "x.pt", {"a": torch.ones(2), "b": Harmful(tmp_path / "ran")}))
    assert not (tmp_path / "ran").exists() and torch.equal(found["a"], torch.ones(2)) and found["b"] is None


def archive(path, table, **records):
    """A torch.save archive around a pickle made by hand."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        file.writestr("archive/data.pkl", table)
        for key, data in records.items():
            file.writestr(f"archive/data/{key}", data)
    return path


def doubled(depth, opening):
    """{"a": x} with x a list of twice the list of twice ..., as many levels deep."""
    return pickle.dumps({"a": doubling(depth, opening)}, 2)


def doubling(depth, opening):
    inner = []
    for _ in range(depth):
        inner = opening([inner, inner])
    return inner


def circle():
    held = {}
    held["self"] = held
    several = [held]
    several.append(several)
    return pickle.dumps({"a": held, "b": several}, 2)


def calls(module, name, argument):
    """module.name(argument) in a pickle of protocol 0."""
    out = io.BytesIO()
    out.write(f"c{module}\n{name}\n".encode() + b"(")
    out.write(pickle.dumps(argument, 0)[:-1])
    out.write(b"tR.")
    return out.getvalue()


def many(opcode, count=1_000_000):
    return b"\x80\x02" + opcode * count + b"."


def copies(kind, count=60_000):
    """A list of many entries, given to a class of the language again and again."""
    numbers = b"".join(b"K\x01" for _ in range(50_000))
    start = b"\x80\x02cbuiltins\n" + kind + b"\nq\x00](" + numbers + b"eq\x01"
    return start + (b"h\x00h\x01\x85R" * count) + b"."


def colliding(count=100_000):
    """A dict of numbers that all have one hash."""
    prime = 2**61 - 1
    entries = b"".join(b"\x8a\x0a" + (i * prime).to_bytes(10, "little", signed=True) + b"K\x01" for i in range(count))
    return b"\x80\x02}(" + entries + b"u."


def named(count=100_000):
    return b"\x80\x02" + b"".join(b"cm\nn%d\n0" % i for i in range(count)) + b"]."


HOSTILE = {
    "nested doubling": doubled(22, list),
    "nested doubling of tuples": doubled(60, tuple),
    "deep": b"\x80\x02}X\x01\x00\x00\x00a" + b"]" * 20_000 + b"a" * 19_999 + b"s.",
    "a circle": circle(),
    "text of nested doubling": calls("builtins", "str", doubling(40, list)),
    "a million lists": many(b"]"),
    "a million dicts": many(b"}"),
    "a million sets": many(b"\x8f"),
    "a million objects": b"\x80\x02cm\nn\nq\x00" + b"h\x00)\x81" * 1_000_000 + b".",
    "copies of a list": copies(b"list"),
    "copies of a tuple": copies(b"tuple"),
    "numbers of one hash": colliding(),
    "many names": named(),
    "a long number": b"\x80\x02L" + b"9" * 1_000_000 + b"L\n.",
    "an array without end": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".",
    "frames": b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"].",
    "an extension": b"\x80\x02\x82\x01.",
    "a system call": calls("os", "system", "touch ran"),
    "a function by its parts": b"\x80\x04\x8c\x08builtins\x8c\x0dlist.__init__\x93)R.",
    "a state for a list": b"\x80\x02](K\x01e}X\x01\x00\x00\x00aK\x01sb.",
    "a storage of another kind": b"\x80\x02X\x01\x00\x00\x00aQ.",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_pickles(content, tmp_path, monkeypatch):
    """One sentence or nothing of use, in seconds of work, also beside others, and 300 MB."""
    monkeypatch.chdir(tmp_path)
    path = archive(tmp_path / "x.pt", content)
    modules = set(sys.modules)
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.process_time()
    try:
        found = read_contents(path)
    except ValueError as error:
        assert str(error).startswith("x.pt ") and "\n" not in str(error)
        found = None
    assert time.process_time() - start < 10
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert (after.ru_maxrss - before.ru_maxrss) < 300 * 1024
    assert (
        not (tmp_path / "ran").exists()
        and {one for one in set(sys.modules) - modules if not one.startswith("encodings.")} == set()
    )
    assert not _tensors(found)


def _tensors(found, seen=None):
    seen = set() if seen is None else seen
    if id(found) in seen:
        return False
    seen.add(id(found))
    if isinstance(found, torch.Tensor):
        return True
    inner = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
    return any(_tensors(one, seen) for one in inner)


def rebuilt(storage, offset, shape, stride, kind="FloatStorage"):
    """A pickle of {"a": a tensor with these numbers}."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", getattr(torch, kind), storage, "cpu", 4) if value == "the storage" else None

    class Rebuilt:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, ("the storage", offset, shape, stride, False, OrderedDict())

    out = io.BytesIO()
    Pickler(out, 2).dump({"a": Rebuilt()})
    return out.getvalue()


BAD_TENSORS = {
    "beyond its storage": rebuilt("0", 2, (3,), (1,)),
    "a huge view": rebuilt("0", 0, (1 << 40,), (0,)),
    "negative": rebuilt("0", -1, (2,), (1,)),
    "no numbers": rebuilt("0", 0, ("a",), (1,)),
    "sides without steps": rebuilt("0", 0, (2, 2), (1,)),
    "another format": rebuilt("0", 0, (2,), (1,), "ComplexFloatStorage"),
    "missing": rebuilt("7", 0, (2,), (1,)),
}


@pytest.mark.parametrize("content", BAD_TENSORS.values(), ids=BAD_TENSORS)
def test_tensors_that_do_not_fit_their_storage(content, tmp_path):
    path = archive(tmp_path / "x.pt", content, **{"0": struct.pack("<4f", 1, 2, 3, 4)})
    with pytest.raises(ValueError, match=r"^x\.pt (contains a tensor|is damaged)"):
        read_contents(path)


def test_a_tensor_that_fits_is_read(tmp_path):
    path = archive(tmp_path / "x.pt", rebuilt("0", 1, (3,), (1,)), **{"0": struct.pack("<4f", 1, 2, 3, 4)})
    assert read_contents(path)["a"].tolist() == [2, 3, 4]


def test_numbers_are_finite(tmp_path):
    path = saved(tmp_path / "x.pt", {"a": [{"b": torch.tensor([1.0, float("nan")])}]})
    with pytest.raises(ValueError, match=r"contains NaN or infinite values at a\.0\.b"):
        read_contents(path)
    saved(path, {"a": torch.tensor(float("inf")).expand(3, 3)})
    with pytest.raises(ValueError, match="contains NaN or infinite values at a"):
        read_contents(path)


def test_damaged_files(tmp_path):
    path = saved(tmp_path / "x.pt", {"a": torch.ones(100)})
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    with pytest.raises(ValueError, match="is truncated or damaged"):
        read_contents(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/other", b"")
    with pytest.raises(ValueError, match="is damaged"):
        read_contents(path)
