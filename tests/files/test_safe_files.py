"""Files of any origin: weights are read, nothing runs, and each way to be wrong has its own sentence."""

import contextlib
import pickle
import random

import pytest
import torch
from safetensors.torch import save_file
from support.harmful import Harmful

from pack.nodes.files.safe_files import read_tensors


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
        ({"a": torch.eye(3).to_sparse(), "b": torch.ones(1)}, "contains a, which is not a plain tensor"),
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
