"""Folders that a user names below the host's output folder."""

from pathlib import Path

import folder_paths

from ..host.messages import input_error
from .file_name import folder_name_of


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
