"""Files of any origin: weights are read, nothing runs, and each way to be wrong has its own sentence."""

import contextlib
import io
import json
import os
import pathlib
import pickle
import random
import struct
import time
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.harmful import Harmful

from pack.nodes.files import plain_pickles, tensor_table
from pack.nodes.files.safe_files import read_tensors, sha256_of


def weights(path, **tensors):
    save_file(tensors, path, {"from": "here"})
    return path


def refused(path, says):
    with pytest.raises(ValueError, match=says) as caught:
        read_tensors(path)
    assert path.name in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def test_safetensors_are_read_with_their_metadata(tmp_path):
    read, metadata = read_tensors(weights(tmp_path / "x.safetensors", a=torch.ones(2), b=torch.zeros(1)))
    assert sorted(read) == ["a", "b"] and metadata == {"from": "here"}


@pytest.mark.parametrize("ending", ["pt", "pth", "bin", "ckpt"])
def test_pickles_of_plain_weights_are_read(ending, tmp_path):
    torch.save({"state_dict": {"a": torch.ones(2), "b": torch.zeros(1)}}, tmp_path / f"x.{ending}")
    read, _ = read_tensors(tmp_path / f"x.{ending}")
    assert sorted(read) == ["a", "b"]


def test_parameters_are_read_with_or_without_attributes(tmp_path):
    plain, marked = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.zeros(2))
    marked.of_ours = "yes"
    torch.save({"a": plain, "b": marked}, tmp_path / "x.pt")
    read, _ = read_tensors(tmp_path / "x.pt")
    assert torch.equal(read["a"], plain) and torch.equal(read["b"], marked)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("raw", [False, True], ids=["in a torch file", "a bare pickle"])
def test_nothing_in_a_pickle_runs(raw, tmp_path):
    content = {"a": torch.ones(2), "b": Harmful(tmp_path / "ran")}
    if raw:
        (tmp_path / "x.pt").write_bytes(pickle.dumps(content))
    else:
        torch.save(content, tmp_path / "x.pt")
    what = "contains more than tensors" if raw else r"asks for \w+.mkdir"
    refused(tmp_path / "x.pt", f"is not safe: it {what}.*; nothing in it was run")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["x.safetensors", "x.pt"])
def test_what_people_get_instead(name, tmp_path):
    for content, says in (
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>not found</html>", "is a web page"),
        (b"\xef\xbb\xbf\n<HTML>404</html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a Git LFS pointer"),
        (bytes(range(1, 200)), "is neither a safetensors nor"),
    ):
        (tmp_path / name).write_bytes(content)
        assert "not safe" not in refused(tmp_path / name, says)


def test_cut_off_files(tmp_path):
    whole = weights(tmp_path / "whole.safetensors", a=torch.ones(1000)).read_bytes()
    for share in (0.01, 0.5, 0.99):
        for name in ("x.safetensors", "x.pt"):
            (tmp_path / name).write_bytes(whole[: int(len(whole) * share)])
            refused(tmp_path / name, "is truncated")
    for zipped in (True, False):
        torch.save({"a": torch.ones(1000)}, tmp_path / "whole.pt", _use_new_zipfile_serialization=zipped)
        whole = (tmp_path / "whole.pt").read_bytes()
        for share in (0.1, 0.5, 0.99):
            (tmp_path / "x.pt").write_bytes(whole[: int(len(whole) * share)])
            assert "not safe" not in refused(tmp_path / "x.pt", "truncated")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", ["zip", "pickle", "safetensors"])
def test_any_damage_has_a_sentence(kind, tmp_path):
    path = tmp_path / "x.pt"
    if kind == "safetensors":
        weights(path, a=torch.ones(3))
    else:
        torch.save({"a": {"b": torch.ones(3)}}, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    chance = random.Random(0)
    for _ in range(100):
        damaged = bytearray(whole)
        for _ in range(4):
            damaged[chance.randrange(2, len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        # what still reads as numbers is fine
        with contextlib.suppress(ValueError):
            read_tensors(path)


def test_a_renamed_file(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "x.pt")
    (tmp_path / "x.pt").rename(tmp_path / "x.safetensors")
    refused(tmp_path / "x.safetensors", "rename it to x.pth")
    # this way round it harms nobody
    weights(tmp_path / "y.safetensors", a=torch.ones(2)).rename(tmp_path / "y.pt")
    assert list(read_tensors(tmp_path / "y.pt")[0]) == ["a"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_numbers(bad, tmp_path):
    path = weights(tmp_path / "x.safetensors", a=torch.ones(3), b=torch.tensor([1.0, bad]).half())
    refused(path, "NaN or infinite values at b")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([1, 2], "contains a list instead"),
        ({"a": 3, "b": 4}, "contains a, which is not a plain tensor"),
        ({"a": torch.ones(1), "b": {"c": "words"}}, "contains b.c, which is not a plain tensor"),
        ({"a": torch.eye(3).to_sparse(), "b": torch.ones(1)}, "contains sparse_tensor, which is not a plain tensor"),
        ({}, "contains no weights"),
        (torch.ones(3), "cannot be read as weights"),
    ],
    ids=["list", "numbers", "words", "sparse", "nothing", "tensor"],
)
def test_what_is_no_dictionary_of_tensors(content, says, tmp_path):
    torch.save(content, tmp_path / "x.pt")
    refused(tmp_path / "x.pt", says)


def test_nested_names_are_joined(tmp_path):
    torch.save({"one": {"a": torch.ones(1), "b": {"c": torch.ones(1)}}, "d": torch.ones(1)}, tmp_path / "x.pt")
    assert sorted(read_tensors(tmp_path / "x.pt")[0]) == ["d", "one.a", "one.b.c"]


@pytest.fixture
def odd(tmp_path):
    return tmp_path / "odd.pth"


def circle():
    contents = {}
    contents["a"] = contents
    return contents


def deep(levels=300):
    contents = {"a": torch.zeros(1)}
    for _ in range(levels):
        contents = {"a": contents}
    return contents


def unfolding():
    """Twelve levels of 100 names for one dict each: 10^24 tensors."""
    contents = {f"{i}": torch.zeros(1) for i in range(100)}
    for _ in range(12):
        contents = {f"{i}": contents for i in range(100)}
    return contents


ODD = {
    "stretched": (lambda: {"w": torch.zeros(1).expand(10**6, 10**6)}, "more values than the file holds"),
    "in itself": (circle, "levels of names"),
    "deep": (deep, "levels of names"),
    "unfolding": (unfolding, "unfolds to far more"),
    "one storage, many names": (lambda: dict.fromkeys(map(str, range(5000)), torch.zeros(10**6)), "unfolds to far"),
    "a long name": (lambda: {"k" * 10**6: torch.zeros(1)}, "name is too long"),
    "no name": (lambda: {1: torch.zeros(1), 2: torch.zeros(1)}, "or no text"),
    "meta": (lambda: {"w": torch.zeros(2, device="meta")}, "meta_tensor_no_storage, which is not a plain tensor"),
    "nested": (lambda: {"w": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])}, "not a plain tensor"),
    "complex": (lambda: {"w": torch.ones(2, dtype=torch.complex64), "v": torch.ones(1)}, "not a plain tensor"),
    "bits": (lambda: {"w": torch.zeros(2, dtype=torch.uint8).view(torch.bits8), "v": torch.ones(1)}, "read|plain"),
    "reserved": (lambda: {"w": torch.ones(1), "v": bytearray(10)}, "bytearray, which is not a plain tensor"),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("kind", ODD)
def test_odd_contents_are_refused_at_once(kind, odd):
    contents, says = ODD[kind]
    torch.save(contents(), odd)
    start = time.process_time()
    refused(odd, says)
    assert time.process_time() - start < 2


def test_packed_records_are_not_unpacked(odd):
    with zipfile.ZipFile(odd, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/version", b"3\n")
        file.writestr("a/data.pkl", b"\x80\x02](" + b"K\x01" * 20_000_000 + b"e.")
    start = time.process_time()
    refused(odd, "packed records")
    assert time.process_time() - start < 2


@pytest.mark.parametrize("zipped", [True, False])
def test_instructions_without_end(zipped, odd, monkeypatch):
    monkeypatch.setattr(plain_pickles, "_LONGEST_PICKLE", 10_000)
    pickled = b"\x80\x02](" + b"K\x01" * 20_000 + b"e."
    if zipped:
        with zipfile.ZipFile(odd, "w") as file:
            file.writestr("a/version", b"3\n")
            file.writestr("a/data.pkl", pickled)
    else:
        odd.write_bytes(pickled)
    refused(odd, "too long for weights" if zipped else "too many instructions")


def test_a_storage_that_claims_more_than_its_record(odd):
    torch.save({"w": torch.arange(16.0)}, odd)
    content = odd.read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as found, zipfile.ZipFile(odd, "w") as file:
        for record in found.infolist():
            # the number 16 in the pickle, with as many bytes, becomes 16384
            file.writestr(record.filename, found.read(record).replace(b"K\x10", b"M\x00\x40"))
    refused(odd, "odd.pth")


def test_a_record_may_be_larger_than_the_file_says(odd):
    torch.save({"w": torch.arange(16.0)}, odd)
    content = bytearray(odd.read_bytes())
    # the sizes of the first record in the central directory
    at = content.index(b"PK\x01\x02") + 20
    content[at : at + 8] = struct.pack("<II", 1 << 30, 1 << 30)
    odd.write_bytes(content)
    refused(odd, "records are larger than the file")


def test_what_is_read_lies_in_our_own_memory(tmp_path):
    """A child that reads on after the file was cut off is not killed."""
    for name in ("x.safetensors", "x.pt"):
        path = tmp_path / name
        (save_file if name.endswith("tensors") else torch.save)({"a": torch.ones(1 << 20)}, path)
        tensors, _ = read_tensors(path)
        os.truncate(path, 100)  # how every copy over it begins
        child = os.fork()
        if child == 0:
            os._exit(0 if float(tensors["a"].sum()) == 1 << 20 else 1)
        assert os.waitpid(child, 0)[1] == 0


def test_a_file_that_changes_while_it_is_read(tmp_path, monkeypatch):
    path = weights(tmp_path / "x.safetensors", a=torch.ones(1 << 20), b=torch.ones(1 << 20))
    read = tensor_table._tensor

    def cutting(*args):
        os.truncate(path, 1 << 20)
        return read(*args)

    monkeypatch.setattr(tensor_table, "_tensor", cutting)
    refused(path, "changed while it was read")


def test_every_kind_of_number_is_read_as_the_format_says(tmp_path):
    kinds = {f"{kind}": torch.ones(3, 2).to(kind) for kind in tensor_table.PLAIN_KINDS.values()}
    path = weights(tmp_path / "x.safetensors", **kinds, none=torch.zeros(0, 4), one=torch.tensor(2.0))
    read, _ = read_tensors(path)
    for key, t in load_file(path).items():
        assert read[key].dtype == t.dtype and torch.equal(read[key].float(), t.float()) and read[key].shape == t.shape
    assert len(read) == len(kinds) + 2


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}, "another size than its shape"),
        ({"a": {"dtype": "F32", "shape": [1 << 4000], "data_offsets": [0, 4]}}, "another size than its shape"),
        ({"a": {"dtype": "F32", "shape": [1] * 10**5, "data_offsets": [0, 4]}}, "another size than its shape"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, "is truncated"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, "another size than its shape"),
        ({"a": {"dtype": "F4", "shape": [8], "data_offsets": [0, 4]}}, "of the kind F4, which is no plain number"),
        ({"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}, "says nothing clear of a"),
        ({"a": {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]}}, "says nothing clear of a"),
        ({"a": 3}, "says nothing clear of a"),
        ({"__metadata__": {"a": 3}}, "metadata is not text"),
        ({}, "ends after its tensors"),
        (b"{" + b'"a":[' * 100_000, "table of contents cannot be read"),
        (b"{1}", "table of contents cannot be read"),
    ],
    ids=range(13),
)
def test_a_table_of_contents_that_lies(table, says, tmp_path):
    text = table if isinstance(table, bytes) else json.dumps(table).encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    refused(tmp_path / "x.safetensors", says)


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = weights(tmp_path / "closed.safetensors", a=torch.ones(1))

    def closed(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pathlib.Path, "open", closed)
    assert str(tmp_path) in refused(path, "may not be read; give ComfyUI the right")


def test_a_file_that_is_gone_or_a_folder(tmp_path):
    refused(tmp_path / "gone.pt", "is no longer in .*; put it there again")
    (tmp_path / "folder.pt").mkdir()
    refused(tmp_path / "folder.pt", "is a folder, not a file")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_or_a_device_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.safetensors")
    (tmp_path / "x.pt").symlink_to("/dev/zero")
    for name in ("x.safetensors", "x.pt"):
        refused(tmp_path / name, "is a pipe or a device, not a file; move it away")
        with pytest.raises(ValueError, match="is a pipe or a device"):
            sha256_of(tmp_path / name)
