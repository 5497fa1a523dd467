"""Packs of face networks in models/insightface: which there are, and their files. Nothing is opened here."""

from pathlib import PurePosixPath

from ..files.downloads import links_of
from ..files.model_files import choices, file_names, listed, not_found, path_of, register, stamp
from ..host.messages import input_error

FACE_KIND = "insightface"
ENDING = ".onnx"
# Other packs of nodes keep theirs one folder deeper than models/insightface.
DEEPER = "models"

register(FACE_KIND, endings=(ENDING,))


def pack_choices():
    """The entries of the dropdown; where there are none, one that says where to put files."""
    return choices(_packs(), FACE_KIND)


def check_pack(choice):
    """True, or the sentence to answer with: for the host's validation. A linked choice is not known there."""
    packs = list(_packs())
    return True if listed(choice, packs) in (None, *packs) else _missing(choice, packs)


def pack_changed(choice):
    """A value that changes when a file of the pack does."""
    packs = _packs()
    return stamp(packs.get(listed(choice, list(packs)), ()) if isinstance(choice, str) else (), FACE_KIND)


def files_of_pack(choice):
    """Paths of the networks of a pack; ValueError for one that is not there."""
    packs = _packs()
    chosen = listed(choice, list(packs))
    if not isinstance(chosen, str) or chosen not in packs:
        raise input_error(_missing(choice, list(packs)))
    return [path_of(name, FACE_KIND) for name in packs[chosen]]


def _missing(choice, packs):
    return (
        f"{not_found('face_models', choice, packs, FACE_KIND)}. A pack is a folder such as "
        f"models/{FACE_KIND}/{DEEPER}/antelopev2 with a detection and a recognition network ({ENDING} files); "
        f"insightface publishes them for non-commercial research only, as archives to unpack there: "
        f"{' and '.join(links_of(FACE_KIND))}; nothing is downloaded from here"
    )


def _packs():
    """{pack: names of its files as the host lists them}, in order of their names."""
    register(FACE_KIND, endings=(ENDING,))
    found = {}
    for name in sorted(file_names(FACE_KIND), key=lambda name: (name.count("/") + name.count("\\"), name)):
        path = PurePosixPath(name.replace("\\", "/"))
        if path.suffix.lower() == ENDING and len(path.parts) > 1:
            found.setdefault(_pack_of(path), {}).setdefault(path.parent, []).append(name)
    # a name that stands for several folders is that of the first
    return {pack: next(iter(folders.values())) for pack, folders in sorted(found.items())}


def _pack_of(path):
    folders = [*path.parts[:-1]]
    if folders[0] == DEEPER and len(folders) > 1:
        folders = folders[1:]
    # the archives unpack into a folder of their own name inside another
    if len(folders) > 1 and folders[-1] == folders[-2]:
        folders = folders[:-1]
    return "/".join(folders)
