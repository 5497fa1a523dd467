"""Writers that are broken off at each of their calls to the disk: whole or not at all, nothing of others, no litter."""

import errno
import os
import pathlib
import signal
import time

import comfy.model_management as mm
import pytest
import torch
from safetensors.torch import load_file, save_file

from pack.nodes.files.new_files import clear_leftovers, put_tensors, write_new, write_tensors

# More than any writer here makes.
CALLS = 40


class Disk:
    """Makes one call to the disk go wrong, or with `lasting` that one and all after it."""

    def __init__(self, monkeypatch, at, fails, lasting=False, removing=True):
        self.calls, self.at, self.fails, self.lasting = 0, at, fails, lasting
        self.failed = set()
        monkeypatch.setattr(os, "link", self.watched(os.link))
        monkeypatch.setattr(os, "fsync", self.watched(os.fsync))
        monkeypatch.setattr(pathlib.Path, "replace", self.watched(pathlib.Path.replace))
        monkeypatch.setattr(pathlib.Path, "open", self.opening(pathlib.Path.open))
        if removing:
            monkeypatch.setattr(pathlib.Path, "unlink", self.watched(pathlib.Path.unlink))

    def call(self, name):
        self.calls += 1
        if self.calls == self.at or (self.lasting and self.calls > self.at):
            self.failed.add(name)
            self.fails()

    def watched(self, real):
        def call(*args, **kwargs):
            self.call(real.__name__)
            return real(*args, **kwargs)

        return call

    def opening(self, real):
        def call(*args, **kwargs):
            self.call("open")
            file = real(*args, **kwargs)
            return Filling(file, self) if file.writable() else file

        return call


class Filling:
    """A file of which half is written before the disk says no."""

    def __init__(self, file, disk):
        self.file, self.disk = file, disk

    def __enter__(self):
        self.file.__enter__()
        return self

    def __exit__(self, *error):
        return self.file.__exit__(*error)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, data):
        self.file.write(data[: len(data) // 2])
        self.disk.call("write")
        return self.file.write(data[len(data) // 2 :])


def refusing(code):
    def fails():
        raise OSError(code, os.strerror(code))

    return fails


def interrupting():
    raise mm.InterruptProcessingException


def dying():
    os.kill(os.getpid(), signal.SIGKILL)


FAILS = {
    "full": refusing(errno.ENOSPC),
    "closed": refusing(errno.EACCES),
    "read only": refusing(errno.EROFS),
    "worn out": refusing(errno.EIO),
    "interrupted": interrupting,
}
TENSORS = {"w": torch.arange(1000.0)}


def two_new(folder):
    write_new({folder / "a.safetensors": b"a" * 1000, folder / "b.safetensors": b"b" * 1000}, "loras")


def one_again(folder):
    write_tensors(folder / "again.safetensors", TENSORS)


def one_new(folder):
    write_tensors(folder / "new.safetensors", TENSORS, replace=False)


def one_kept(folder):
    put_tensors(folder / "kept.safetensors", TENSORS)


WRITERS = {"two new": two_new, "one again": one_again, "one new": one_new, "one that we can do without": one_kept}
MADE = {"a.safetensors", "b.safetensors"}


@pytest.fixture
def folder(tmp_path):
    """A folder with a file of somebody's and one that an earlier run wrote."""
    (tmp_path / "precious.safetensors").write_bytes(b"took a night")
    save_file({"w": torch.zeros(3)}, tmp_path / "again.safetensors")
    return tmp_path


def check_whole(folder, ended, removable=True):
    """Everything there is whole, and all is there where the writer came to its end."""
    names = {path.name for path in folder.iterdir() if not path.name.endswith(".part")}
    assert (folder / "precious.safetensors").read_bytes() == b"took a night"
    assert not removable or not MADE & names or names >= MADE, "one of two"
    assert all((folder / name).read_bytes() == name[:1].encode() * 1000 for name in MADE & names)
    for path in folder.glob("[!abp]*.safetensors"):
        assert torch.equal(load_file(path)["w"], TENSORS["w"])
    before = load_file(folder / "again.safetensors")["w"]
    assert len(before) == 3 or torch.equal(before, TENSORS["w"])
    assert not ended or len(names) > 2 or len(before) == 1000


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("fails", FAILS)
@pytest.mark.parametrize("writer", WRITERS)
def test_each_call_to_the_disk_may_go_wrong(writer, fails, lasting, folder, monkeypatch):
    write, told = WRITERS[writer], set()
    for at in range(1, CALLS):
        for path in folder.iterdir():
            if path.name not in ("precious.safetensors", "again.safetensors"):
                path.unlink()
        save_file({"w": torch.zeros(3)}, folder / "again.safetensors")
        with monkeypatch.context() as during:
            # an interrupt comes between the host's steps, never while we clear away
            disk = Disk(during, at, FAILS[fails], lasting, removing=fails != "interrupted")
            ended, error = broken_off(write, folder)
        check_whole(folder, ended, removable="unlink" not in disk.failed)
        told.add(error)
        # what could not be removed goes by its age
        assert "unlink" in disk.failed or not list(folder.glob("*.part"))
        if disk.calls < at:
            break
        again(write, folder)
        check_whole(folder, True)
    assert at > 3 and disk.calls < at, "not every call was tried"
    wanted = {OSError} if writer.startswith("one that") and fails != "interrupted" else {ValueError}
    wanted = {mm.InterruptProcessingException} if fails == "interrupted" else wanted
    assert told - {None} == wanted


def again(write, folder):
    """The next run, which comes to its end; a whole file of the first is known by what it says of itself."""
    if write is one_new and (folder / "new.safetensors").exists():
        return
    write(folder)


def broken_off(write, folder):
    """(whether it came to its end, the kind of what it raised)."""
    try:
        write(folder)
    except OSError:
        return False, OSError
    except (ValueError, mm.InterruptProcessingException) as error:
        return False, type(error)
    return True, None


@pytest.mark.parametrize("writer", WRITERS)
def test_killed_at_each_call_to_the_disk(writer, folder, monkeypatch):
    write, status = WRITERS[writer], None
    for at in range(1, CALLS):
        child = os.fork()
        if child == 0:
            Disk(monkeypatch, at, dying)
            write(folder)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        half = [path for path in folder.iterdir() if path.name.endswith(".part")]
        names = {path.name for path in folder.iterdir()} - {path.name for path in half}
        assert all(path.read_bytes()[:1] == path.name[:1].encode() for path in folder.glob("[ab].safetensors"))
        assert (folder / "precious.safetensors").read_bytes() == b"took a night"
        assert all(load_file(folder / name) for name in names - MADE - {"precious.safetensors"})
        if status == 0:
            break
        # the next run finishes what this one began, and clears away what has become old
        for path in half:
            os.utime(path, (time.time() - 7200,) * 2)
        again(write, folder)
        clear_leftovers(folder)
        check_whole(folder, True)
        assert not list(folder.glob("*.part"))
        for path in folder.glob("[!pa]*.safetensors"):
            path.unlink()
        (folder / "a.safetensors").unlink(missing_ok=True)
        save_file({"w": torch.zeros(3)}, folder / "again.safetensors")
    assert status == 0 and at > 3


def test_two_processes_write_the_same_names(folder):
    """One of them wins, with both of its files."""
    for _ in range(20):
        start = time.monotonic() + 0.03
        children = [os.fork() for _ in range(1)]
        mine = b"2" if children[0] else b"1"
        files = {folder / "a.safetensors": mine * 50_000, folder / "b.safetensors": mine * 50_000}
        while time.monotonic() < start:
            pass
        try:
            write_new(files, "loras")
            lost = False
        except ValueError:
            lost = True
        if not children[0]:
            os._exit(lost)
        assert os.waitpid(children[0], 0)[1] in ((0,) if lost else (256,)), "both or neither"
        assert len({path.read_bytes()[:1] for path in files}) == 1
        assert not list(folder.glob("*.part"))
        for path in files:
            path.unlink()
