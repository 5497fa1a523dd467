"""What the disk refuses, in sentences: why, in which folder, and what to do."""

import errno
import stat

from ..host.messages import plain

AGAIN = "download the file again"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)


class UnreadableFileError(ValueError):
    """A file that cannot be read: its name, what is wrong with it, and what to do; its text is the whole sentence."""

    def __init__(self, name, wrong, advice=AGAIN):
        super().__init__(plain(f"{name} {wrong}; {advice}"))
        self.wrong = wrong


def open_to_read(path):
    """The file at a path, open for its bytes. OSError is raised where the disk does not give it; an
    UnreadableFileError for a pipe or a device, which might never end.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UnreadableFileError(path.name, f"in {path.parent} is a pipe or a device, not a file", "move it away")
    return path.open("rb")


def unreadable(path, error):
    """The UnreadableFileError for an OSError at reading."""
    if isinstance(error, FileNotFoundError):
        return UnreadableFileError(
            path.name, f"is no longer in {path.parent}", "put it there again, or choose another file"
        )
    if isinstance(error, IsADirectoryError):
        return UnreadableFileError(path.name, f"in {path.parent} is a folder, not a file", "move it away")
    if error.errno in _CLOSED:
        return UnreadableFileError(
            path.name, f"in {path.parent} may not be read", "give ComfyUI the right to read this file and its folder"
        )
    return UnreadableFileError(
        path.name, f"in {path.parent} cannot be read ({_reason(error)})", "check the disk and the folder, and try again"
    )


def unwritable(path, error):
    """The sentence for an OSError at writing."""
    if error.errno in _FULL:
        return f"{path.name} cannot be written: the disk of {path.parent} is full; free some space and run it again"
    if error.errno in _CLOSED:
        return (
            f"{path.name} cannot be written: ComfyUI has no right to write into {path.parent}; give it that right and "
            "run it again"
        )
    return (
        f"{path.name} cannot be written into {path.parent} ({_reason(error)}); check that this is a folder on a disk "
        "that can be written to, and run it again"
    )


def _reason(error):
    return error.strerror or str(error) or type(error).__name__
