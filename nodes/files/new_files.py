"""New files, the one writer: written beside, whole or not at all, and nothing that belongs to others is replaced."""

import contextlib
import os
import re
import time
import uuid
from pathlib import Path

import folder_paths
import safetensors.torch

from ..host.messages import input_error
from .disk_errors import unwritable

# What is being written: the name it will have, who writes it (several threads may), and this ending.
_PART = re.compile(r".+\.\d+(-[0-9a-f]{32})?\.part")
# Seconds after which nobody writes at such a file any more: every piece that is written makes it new.
_STALE = 3600


def in_folder(kind, name):
    """The path of a new file in the first of the host's folders of a kind."""
    return Path(folder_paths.get_folder_paths(kind)[0]) / name


def write_new(files, kind):
    """Writes {path: bytes}, all or none; a file that stands there with the same content is left as it is.

    Raises ValueError rather than overwrite a file with another content, and where the disk does not take it.
    """
    parts, written = {}, []
    try:
        for path, data in files.items():
            with _in_sentences(path):
                if os.path.lexists(path):
                    _check_same(path, data, kind)
                    continue
                make_folder(path.parent)
                clear_leftovers(path.parent)
                parts[path] = _part_of(path)
                _write(parts[path], lambda part, data=data: _bytes_into(part, data))
        for path, part in parts.items():
            with _in_sentences(path):
                if _publish(part, path):
                    written.append(path)
                else:
                    _check_same(path, files[path], kind)
    except BaseException:
        # a disk that refuses this too keeps whole files, which the next run knows by their content
        _remove(written)
        raise
    finally:
        _remove(parts.values())


def write_tensors(path, tensors, replace=True, **metadata):
    """Writes a safetensors file beside and renames it, so that nobody ever reads half a file; one of ours is replaced.

    tensors: {name: tensor on any device}; metadata: text by name; replace: False where a file that came meanwhile is
    somebody's. Raises ValueError for that one, and where the disk does not take it.
    """
    with _in_sentences(path):
        if not put_tensors(path, tensors, replace, **metadata):
            raise input_error(f"{path.name} already exists in {path.parent}; move it away or enter another file_name")


def put_tensors(path, tensors, replace=True, **metadata):
    """As `write_tensors`, for files that we can do without: an OSError, which is shown nowhere, says why. Returns
    whether it was written; without `replace` a file of that name stays.
    """
    part = _part_of(path)
    # in memory: what the library writes itself has another name for a while, and may be read by its owner alone
    data = safetensors.torch.save({key: t.detach().cpu().contiguous() for key, t in tensors.items()}, metadata or None)
    try:
        _write(part, lambda part: _bytes_into(part, data))
        if not replace:
            return _publish(part, path)
        part.replace(path)
        return True
    finally:
        _remove([part])


def try_writing(path, size):
    """Raises ValueError unless the folder takes a file of so many bytes: to be asked before hours of work for it."""
    part = _part_of(path)
    try:
        with _in_sentences(path):
            make_folder(path.parent)
            _write(part, lambda part: _filling_into(part, size))
    finally:
        _remove([part])


def make_folder(folder):
    """Makes a folder and those above it; ValueError where the disk does not take it."""
    with _in_sentences(folder):
        folder.mkdir(parents=True, exist_ok=True)


def clear_leftovers(folder):
    """Removes what killed processes left half written; returns the bytes of what others are writing there now."""
    size = 0
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if _PART.fullmatch(entry.name):
                # gone between the two lines is gone as well
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if time.time() - status.st_mtime > _STALE:
                        Path(entry.path).unlink()
                    else:
                        size += status.st_size
    return size


def _part_of(path):
    return path.with_name(f"{path.name}.{os.getpid()}-{uuid.uuid4().hex}.part")


def _write(part, fill):
    fill(part)
    # a name must never come to a file whose bytes a power cut would still lose
    with part.open("rb+") as file:
        os.fsync(file.fileno())


def _bytes_into(part, data):
    with part.open("xb") as file:
        file.write(data)


def _filling_into(part, size):
    # some disks keep zeros in no space
    filling = os.urandom(1 << 20)
    with part.open("xb") as file:
        for start in range(0, size, len(filling)):
            file.write(filling[: size - start])


def _publish(part, path):
    """Gives a whole file its name, False if the name is taken."""
    try:
        os.link(part, path)
    except FileExistsError:
        return False
    except OSError:
        # some disks have no links: there an empty file of ours holds the name for a moment
        return _publish_without_links(part, path)
    return True


def _publish_without_links(part, path):
    try:
        path.open("xb").close()
    except FileExistsError:
        return False
    try:
        part.replace(path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return True


def _check_same(path, data, kind):
    if not path.is_file() or path.stat().st_size != len(data) or path.read_bytes() != data:
        raise input_error(
            f"{path.name} already exists in the {kind} folder with different contents; enter another file_name"
        )


def _remove(paths):
    for path in paths:
        # a part that cannot be removed now is by its age
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _in_sentences(path):
    try:
        yield
    except OSError as error:
        raise input_error(unwritable(path, error)) from error
