"""Folders that a user names below the host's output folder."""

import contextlib
from pathlib import Path

import folder_paths

from ..host.messages import input_error
from .file_name import folder_name_of
from .file_stamps import file_stamp


def output_folder(name):
    """A folder below the host's output folder; ValueError for a name that leads out of it."""
    output = Path(folder_paths.get_output_directory()).resolve()
    folder = output.joinpath(*folder_name_of(name))
    try:
        inside = output in folder.resolve().parents
    except (OSError, RuntimeError):
        # links in a circle
        inside = False
    if not inside:
        raise input_error(f'folder is "{name}"; enter the name of a folder inside ComfyUI\'s output folder')
    return folder


def folder_stamp(name, *patterns):
    """A value for the host's cache that changes when a file of these patterns in such a folder changes, comes or goes.

    One value for None, a name from a wire, and for a name that leads out, of which the node says what is wrong.
    """
    paths = []
    with contextlib.suppress(ValueError):
        folder = None if name is None else output_folder(name)
        paths = [] if folder is None else sorted(path for pattern in patterns for path in folder.glob(pattern))
    return file_stamp((path.name, path) for path in paths)
