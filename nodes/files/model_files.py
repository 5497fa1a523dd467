"""Files in the host's model folders: which there are, where they lie, and what to say when one is missing."""

import functools
import os
from pathlib import Path

import folder_paths

from ..host.messages import input_error, log_warning, visible
from .companions import POCKET, companions, is_companion
from .downloads import pages_of
from .file_stamps import file_stamp

# The host's own folders that several kinds of files share.
LORAS, EMBEDDINGS = "loras", "embeddings"
# So many names stand in a sentence.
NAMED = 10


def register(*kinds, endings=()):
    """Makes the host know models/<kind>, beside what extra_model_paths.yaml and other packs say of that kind.

    endings: of files that the host itself does not count among models, such as ".onnx".
    """
    for kind in kinds:
        ours = os.path.join(folder_paths.models_dir, kind)  # noqa: PTH118 (the host keeps text)
        known, extensions = folder_paths.folder_names_and_paths.get(kind, (None, None))
        if known is None or ours not in known:
            folder_paths.add_model_folder_path(kind, ours)
        # a kind of which only folders are named has none, so the host would list every file
        wanted = {*(extensions or ()), *endings} or set(folder_paths.supported_pt_extensions)
        if wanted != set(extensions or ()):
            paths = folder_paths.folder_names_and_paths[kind][0]
            folder_paths.folder_names_and_paths[kind] = (paths, wanted)
            # the host sees new folders and files by itself, but not new endings
            folder_paths.filename_list_cache.pop(kind, None)


def file_names(*kinds):
    """Names of the files in the folders of these kinds, as the host lists them, and then of the pack's companions.

    Kinds are aliases of one another. Names that a page might take for more than a name are left out: older front ends
    show a dropdown's entries as HTML.
    """
    # again each time: packs that are loaded after us replace entries
    register(*kinds)
    names = dict.fromkeys(name for kind in kinds for name in folder_paths.get_filename_list(kind))
    return [*filter(_can_be_shown, names), *(name for kind in kinds for name in companions(kind))]


@functools.cache
def _can_be_shown(name):
    shown = "<" not in name and all(map(visible, name))
    if not shown:
        # remembered, and so said once
        log_warning(f'the file "{name}" is not offered; rename it without < and characters that cannot be seen')
    elif is_companion(name):
        log_warning(f'the file "{name}" is not offered; rename it: names with "{POCKET}" mean the pack\'s own files')
    return shown and not is_companion(name)


def choices(names, kind):
    """The entries of a dropdown; where the user has none, the first one says where to put files."""
    found = [name for name in names if not is_companion(name)]
    hint = f"none found: put files into models/{kind} and refresh the page"
    return [*(found or [hint]), *filter(is_companion, names)]


def not_found(what, name, names, *kinds):
    """The sentence for a choice of the input `what` that is not among the names on this machine."""
    folders = ", ".join(dict.fromkeys(path for kind in kinds for path in folder_paths.get_folder_paths(kind)))
    names = [one for one in names if not is_companion(one)]
    if name in choices((), kinds[0]):
        pages = " or ".join(pages_of(kinds[0], what))
        return (
            f"{what}: nothing is there yet; put files{pages and f' from {pages}'} into {folders} and refresh the page"
        )
    more = ", ..." if len(names) > NAMED else ""
    there = f"found: {', '.join(names[:NAMED])}{more}" if names else "nothing is there yet"
    return f'{what} "{name}" is not in {folders} ({there}); put it there and refresh the page, or choose another'


def listed(name, names):
    """A choice as this machine lists it: what carries workflows to other systems turns the separators of folders."""
    if name in names or not isinstance(name, str):
        return name
    return next((one for one in names if _separated(one) == _separated(name)), name)


def valid(what, name, *kinds):
    """True if the choice of the input `what` is on this machine or comes from a wire; else what to say."""
    found = file_names(*kinds)
    return listed(name, found) in (None, *found) or not_found(what, name, found, *kinds)


def path_of(name, *kinds):
    """The path of a listed file; ValueError if it is gone."""
    path = _path(name, kinds)
    if path is None:
        raise input_error(not_found("file", name, file_names(*kinds), *kinds))
    return path


def stamp(names, *kinds):
    """A value for the host's cache that changes when one of these files changes, comes or goes."""
    return file_stamp((name, _path(name, kinds)) for name in names)


def _separated(name):
    return name.replace("\\", "/")


def _path(name, kinds):
    name = listed(name, file_names(*kinds)) or ""
    if is_companion(name):
        return next((companions(kind)[name] for kind in kinds if name in companions(kind)), None)
    found = (folder_paths.get_full_path(kind, name) for kind in kinds)
    return next((Path(path) for path in found if path is not None), None)
