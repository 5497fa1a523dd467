"""The one writer: whole or not at all, never over what others wrote, and each refusal of the disk in one sentence."""

import errno
import os
import pathlib
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from safetensors.torch import load_file

from pack.nodes.files import new_files
from pack.nodes.files.file_name import file_name_of, folder_name_of
from pack.nodes.files.new_files import clear_leftovers, put_tensors, try_writing, write_new, write_tensors

SAID = {
    errno.ENOSPC: "the disk of .* is full; free some space",
    errno.EACCES: "no right to write into .*; give it that right",
    errno.EROFS: "no right to write into .*; give it that right",
    errno.EIO: "cannot be written into .*; check that this is a folder",
}


def failing(code):
    def fails(*_, **__):
        raise OSError(code, os.strerror(code))

    return fails


def old(path, hours=2):
    path.write_bytes(b"half")
    os.utime(path, (time.time() - 3600 * hours,) * 2)
    return path


@pytest.fixture(params=[True, False], ids=["links", "no links"])
def links(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(os, "link", failing(errno.EPERM))


@pytest.mark.usefixtures("links")
def test_all_or_none(tmp_path):
    first, second = tmp_path / "new" / "a.safetensors", tmp_path / "new" / "b.safetensors"
    write_new({first: b"1", second: b"2"}, "loras")
    write_new({first: b"1", second: b"2"}, "loras")
    third = tmp_path / "new" / "c.safetensors"
    with pytest.raises(ValueError, match=r"b.safetensors already exists in the loras folder"):
        write_new({third: b"3", second: b"other"}, "loras")
    assert {path.name: path.read_bytes() for path in first.parent.iterdir()} == {
        "a.safetensors": b"1",
        "b.safetensors": b"2",
    }


@pytest.mark.usefixtures("links")
def test_a_name_that_is_taken_while_we_write_stays_taken(tmp_path, monkeypatch):
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    fill = new_files._bytes_into

    def slow(part, data):
        fill(part, data)
        second.write_bytes(b"precious")

    monkeypatch.setattr(new_files, "_bytes_into", slow)
    with pytest.raises(ValueError, match="b.safetensors already exists"):
        write_new({first: b"1" * 8, second: b"2" * 8}, "loras")
    assert [path.name for path in tmp_path.iterdir()] == ["b.safetensors"] and second.read_bytes() == b"precious"


@pytest.mark.parametrize("kind", ["folder", "dead link"])
def test_a_name_that_something_else_has(kind, tmp_path):
    path = tmp_path / "x.safetensors"
    path.mkdir() if kind == "folder" else path.symlink_to(tmp_path / "nothing")
    with pytest.raises(ValueError, match="already exists"):
        write_new({path: b"x"}, "loras")
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


@pytest.mark.parametrize("code", SAID)
def test_what_the_disk_refuses_is_said(code, tmp_path, monkeypatch):
    path = tmp_path / "x.safetensors"
    with monkeypatch.context() as during:
        during.setattr(pathlib.Path, "open", failing(code))
        for write in (lambda: write_new({path: b"x"}, "loras"), lambda: try_writing(path, 10)):
            with pytest.raises(ValueError, match=SAID[code]) as error:
                write()
            assert str(tmp_path) in str(error.value)
        with pytest.raises(ValueError, match=SAID[code]):
            write_tensors(path, {"a": torch.ones(2)})
        with pytest.raises(OSError, match=os.strerror(code)):
            put_tensors(path, {"a": torch.ones(2)})
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_up(tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # beyond it the system would end us, as Python asks it not to
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    path = tmp_path / "x.safetensors"
    try:
        for write in (
            lambda: write_new({path: bytes(5000)}, "loras"),
            lambda: write_tensors(path, {"a": torch.ones(5000)}),
            lambda: try_writing(path, 5000),
        ):
            with pytest.raises(ValueError, match="File too large"):
                write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "loras").write_bytes(b"")
    with pytest.raises(ValueError, match="check that this is a folder"):
        write_new({tmp_path / "loras" / "x.safetensors": b"x"}, "loras")


def test_a_killed_writer_leaves_no_name(tmp_path):
    files = {tmp_path / "x.safetensors": b"x" * 100_000_000}
    child = os.fork()
    if child == 0:
        write_new(files, "loras")
        os._exit(0)
    while not any(tmp_path.iterdir()):
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    write_new(files, "loras")
    assert (tmp_path / "x.safetensors").stat().st_size == 100_000_000


def test_several_threads_write_one_name(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: write_tensors(tmp_path / "x.safetensors", {"w": torch.full((50_000,), n)}), range(40)))
    assert len(load_file(tmp_path / "x.safetensors")["w"].unique()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_write_tensors_may_not_replace(tmp_path):
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.ones(1)}, replace=False)
    with pytest.raises(ValueError, match="x.safetensors already exists"):
        write_tensors(path, {"a": torch.zeros(1)}, replace=False)
    assert load_file(path)["a"] == 1
    write_tensors(path, {"a": torch.zeros(1)})
    assert load_file(path)["a"] == 0 and len(list(tmp_path.iterdir())) == 1


def test_others_may_read_what_is_written(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    write_new({tmp_path / "new": b"x"}, "loras")
    write_tensors(tmp_path / "tensors", {"a": torch.ones(1)})
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1


def test_only_our_own_leftovers_go_and_only_by_age(tmp_path):
    ending = f"{'0123456789abcdef' * 2}.part"
    gone = [old(tmp_path / f"x.safetensors.123-{ending}"), old(tmp_path / "x.safetensors.123.part")]
    others = [old(tmp_path / name) for name in ("x.safetensors.part", "x.part", f"123-{ending}", "x.safetensors")]
    fresh = old(tmp_path / f"y.safetensors.9-{ending}", hours=0.5)
    assert clear_leftovers(tmp_path) == 4
    assert not any(path.exists() for path in gone) and all(path.exists() for path in (*others, fresh))
    old(gone[0])
    write_new({tmp_path / "z.safetensors": b"z"}, "loras")
    assert not gone[0].exists()
    assert clear_leftovers(tmp_path / "none") == 0


NAMES = ["x" * 255, "\ud800", "a\0b", "a\u200bb", "a\tb", "a:b", "a|b", "CON", "nul.txt", "Com1", "lpt\xb3", "x.", "..",
         ".x", "a/b", "a\\b", "\xe9" * 120]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_that_some_system_cannot_write(name):
    with pytest.raises(ValueError, match='^file_name is ".*enter a bare name such as "mine"') as error:
        file_name_of(name, "mine")
    assert str(error.value).isprintable()
    if not set(name) & {"/", "\\"}:
        with pytest.raises(ValueError, match="^folder is \".*inside ComfyUI's output folder"):
            folder_name_of(f"pairs/{name}")


@pytest.mark.parametrize("name", ["x.pth", "x.CKPT", "x.sft"])
def test_the_ending_of_another_kind(name):
    with pytest.raises(ValueError, match="the ending of another kind of file"):
        file_name_of(name, "mine")


def test_names_that_every_system_can_write():
    assert file_name_of(" my net v1.5 ", "x") == "my net v1.5.safetensors"
    assert file_name_of("x.safetensors", "x") == "x.safetensors"
    assert file_name_of("console \u732b", "x") == "console \u732b.safetensors"
    assert folder_name_of("a\\b/ c /") == ["a", "b", "c"]
