"""Model files in the host's folders: which there are, where they lie, and what to say when one is missing."""

import os

import folder_paths

from .say import refusal


def register(*kinds):
    """Makes folders known to the host: models/<kind>, beside what the user's own settings say of that kind."""
    for kind in kinds:
        default = os.path.join(folder_paths.models_dir, kind)  # noqa: PTH118 (the host keeps strings)
        paths, extensions = folder_paths.folder_names_and_paths.get(kind, ([], ()))
        if default not in paths:
            paths.append(default)
        # a kind of which somebody only named a folder has no extensions, which would list every file
        extensions = extensions or set(folder_paths.supported_pt_extensions)
        folder_paths.folder_names_and_paths[kind] = (paths, extensions)


def choices(*kinds):
    """Names of the files in these folders for a list on a node; one entry that explains if there are none."""
    names = _names(kinds)
    return names or [f"no file found: put one into models/{kinds[0]} and refresh the page"]


def missing(name, *kinds):
    """None if a file of this name is in the folders, else the sentence that says what is there."""
    names = _names(kinds)
    if name in names:
        return None
    folders = ", ".join(folder for kind in kinds for folder in folder_paths.get_folder_paths(kind))
    seen = f"there are: {', '.join(names[:10])}" if names else "there is no model file"
    wanted = "" if name in choices(*kinds) else f'"{name}" not found; '
    return f"{wanted}put the file into one of {folders} and refresh; {seen}"


def path_of(name, *kinds):
    """The path of a file that `choices` listed; ValueError with the sentence of `missing` if it is gone."""
    for kind in kinds:
        path = folder_paths.get_full_path(kind, name)
        if path is not None:
            return path
    raise refusal(missing(name, *kinds) or f'"{name}" cannot be opened; look at its folder and its rights')


def stamp(name, *kinds):
    """What changes when the file changes, for the host's cache."""
    for kind in kinds:
        path = folder_paths.get_full_path(kind, name or "")
        if path is not None:
            status = os.stat(path)  # noqa: PTH116
            return f"{path}/{status.st_mtime_ns}/{status.st_size}"
    return "missing"


def _names(kinds):
    return list(dict.fromkeys(name for kind in kinds for name in folder_paths.get_filename_list(kind)))
