"""Files in the host's model folders: which there are, where they lie, and what to say when one is missing."""

import hashlib
import json
import os
from pathlib import Path

import folder_paths

from ..host.messages import input_error

# So many names stand in a sentence.
NAMED = 10


def register(*kinds):
    """Makes the host know models/<kind>, beside what extra_model_paths.yaml and other packs say of that kind."""
    for kind in kinds:
        ours = os.path.join(folder_paths.models_dir, kind)  # noqa: PTH118 (the host keeps text)
        known, extensions = folder_paths.folder_names_and_paths.get(kind, (None, None))
        if known is None or ours not in known:
            folder_paths.add_model_folder_path(kind, ours)
        if not extensions:
            # a kind of which only folders are named has none, so the host would list every file
            paths = folder_paths.folder_names_and_paths[kind][0]
            folder_paths.folder_names_and_paths[kind] = (paths, set(folder_paths.supported_pt_extensions))
            # the host sees new folders and files by itself, but not new endings
            folder_paths.filename_list_cache.pop(kind, None)


def file_names(*kinds):
    """Names of the files in the folders of these kinds, as the host lists them; kinds are aliases of one another."""
    # again each time: packs that are loaded after us replace entries
    register(*kinds)
    return list(dict.fromkeys(name for kind in kinds for name in folder_paths.get_filename_list(kind)))


def choices(names, kind):
    """The entries of a dropdown; where there are none, one that says where to put files."""
    return list(names) or [f"none found: put files into models/{kind} and refresh the page"]


def not_found(what, name, names, *kinds):
    """The sentence for a choice of the input `what` that is not among the names on this machine."""
    folders = ", ".join(dict.fromkeys(path for kind in kinds for path in folder_paths.get_folder_paths(kind)))
    if name in choices((), kinds[0]):
        return f"{what}: nothing is there yet; put files into {folders} and refresh the page"
    more = ", ..." if len(names) > NAMED else ""
    there = f"found: {', '.join(names[:NAMED])}{more}" if names else "nothing is there yet"
    return f'{what} "{name}" is not in {folders} ({there}); put it there and refresh the page, or choose another'


def valid(what, name, *kinds):
    """True if the choice of the input `what` is on this machine or comes from a wire; else what to say."""
    found = file_names(*kinds)
    return name in (None, *found) or not_found(what, name, found, *kinds)


def path_of(name, *kinds):
    """The path of a listed file; ValueError if it is gone."""
    path = _path(name, kinds)
    if path is None:
        raise input_error(not_found("file", name, file_names(*kinds), *kinds))
    return path


def stamp(names, *kinds):
    """A value for the host's cache that changes when one of these files changes, comes or goes."""
    state = hashlib.blake2b(digest_size=16)
    for name in names:
        path = _path(name, kinds)
        status = path and path.stat()
        found = [str(path), status.st_mtime_ns, status.st_size] if path else [name]
        state.update(json.dumps(found).encode())
    # the host writes it into every picture: a digest tells nobody where the files lie
    return state.hexdigest()


def _path(name, kinds):
    found = (folder_paths.get_full_path(kind, name or "") for kind in kinds)
    return next((Path(path) for path in found if path is not None), None)
