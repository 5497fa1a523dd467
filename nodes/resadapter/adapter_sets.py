"""ResAdapter sets in the host's model folders: which there are, and what is in one, told by its contents."""

from dataclasses import dataclass, field
from pathlib import PurePath

import torch

from ..files.model_files import choices, file_names, listed, not_found, path_of, register, stamp
from ..files.safe_files import read_tensors, sha256_of
from ..host.messages import input_error
from .published_sets import BY_HASH, PUBLISHED_SETS
from .set_keys import family_of_modules, read_keys

SET_KIND = "resadapter"
AND = " + "
# Endings of the names under which the two halves were published, and under which people keep them.
LORA_ENDINGS = ("pytorch_lora_weights", "lora")
NORM_ENDINGS = ("diffusion_pytorch_model", "normalization", "norms", "norm")
# Published norms hold whole values, 0.45 to 0.63 on average; differences to a model lie around 0.
LEAST_MEAN = 0.1

register(SET_KIND)


@dataclass(frozen=True)
class AdapterSet:
    """What a set holds: weights by module as `read_keys` gives them, and what is known of it."""

    name: str
    convs: dict = field(default_factory=dict, repr=False)
    norms: dict = field(default_factory=dict, repr=False)
    published: str | None = None
    notes: tuple = ()

    @property
    def family(self):
        """ "SD1.5", "SDXL" or None where its modules do not tell."""
        return PUBLISHED_SETS[self.published].family if self.published else family_of_modules(self.convs, self.norms)

    @property
    def like(self):
        """The published set that it is, or else is named after; None for another."""
        names = sorted((n for n in PUBLISHED_SETS if PUBLISHED_SETS[n].family == self.family), key=len, reverse=True)
        return self.published or next((name for name in names if name in self.name), None)

    @property
    def interpolates(self):
        """Whether it is made for sizes below the native one only, where norms do no good."""
        # the authors' first sets stood in folders such as sd1.5-i
        return (self.like or self.name).endswith(("_interpolation", "-i"))

    @property
    def norm_count(self):
        """Tensors of norms."""
        return sum(len(parts) for parts in self.norms.values())


def set_choices(*before):
    """The entries of the dropdown; where there are none, one that says where to put files."""
    return choices([*before, *_sets()], SET_KIND)


def check_choice(choice):
    """True, or the sentence to answer with: for the host's validation. A linked choice is not known there."""
    # a workflow file may hold anything, which a list can be asked about and a dict cannot
    sets = list(_sets())
    return True if listed(choice, sets) in (None, *sets) else not_found("adapter_set", choice, sets, SET_KIND)


def set_changed(choice):
    """A value that changes when a file of the set does."""
    sets = _sets()
    return stamp(sets.get(listed(choice, list(sets)), ()) if isinstance(choice, str) else (), SET_KIND)


def read_set(choice):
    """The AdapterSet of an entry of the dropdown: a folder, a pair of files, or one file.

    Raises ValueError for a set that is not there, cannot be read or is no ResAdapter.
    """
    sets = _sets()
    choice = listed(choice, list(sets))
    if choice not in list(sets):
        raise input_error(not_found("adapter_set", choice, list(sets), SET_KIND))
    convs, norms, known, notes = {}, {}, set(), []
    for file in sets[choice]:
        path = path_of(file, SET_KIND)
        weights, metadata = read_tensors(path)
        more_convs, more_norms = read_keys(weights, file)
        if (convs and more_convs) or (norms and more_norms):
            raise input_error(
                f"adapter_set {choice} contains two sets ({AND.join(sets[choice])}); put each into a folder of its own"
            )
        convs, norms = convs or more_convs, norms or more_norms
        known.add(BY_HASH.get(sha256_of(path)) or _exported_from(metadata))
    if len(known - {None}) > 1:
        notes.append(f"its two files are from different sets: {' and '.join(sorted(known - {None}))}")
    families = {family_of_modules(convs, {}), family_of_modules({}, norms)} - {None}
    if len(families) > 1:
        raise input_error(
            f"adapter_set {choice}: its two files are for {' and '.join(sorted(families))}; use both files of one set"
        )
    _refuse_differences(choice, norms)
    published = known.pop() if len(known) == 1 else None
    return AdapterSet(choice, convs, norms, published, tuple(notes))


def _exported_from(metadata):
    name = metadata.get(SET_KIND)
    return name if name in PUBLISHED_SETS else None


def _refuse_differences(choice, norms):
    values = [parts["weight"].float().flatten() for parts in norms.values() if "weight" in parts]
    mean = float(torch.cat(values).mean()) if values else 1.0
    if abs(mean) < LEAST_MEAN:
        raise input_error(
            f"adapter_set {choice}: its norms average {mean:.2g}, so they look like differences from a model; a "
            "ResAdapter holds the norms themselves (0.45 to 0.63 on average): download the published file"
        )


def _sets():
    """{entry: its files}. A folder of one or two files is a set; else each file is, and each pair by its names."""
    folders = {}
    for file in file_names(SET_KIND):
        folders.setdefault(str(PurePath(file).parent), []).append(file)
    found = {}
    for folder, files in sorted(folders.items()):
        if folder != "." and len(files) <= 2:
            found[PurePath(folder).as_posix()] = tuple(files)
            continue
        norms = {_before(file, NORM_ENDINGS): file for file in files}
        for file in files:
            name = _before(file, LORA_ENDINGS)
            if name is not None and name in norms:
                both = file, norms[name]
                found[AND.join(PurePath(half).as_posix() for half in both)] = both
        found |= {PurePath(file).as_posix(): (file,) for file in files}
    return found


def _before(file, endings):
    """What stands in a file's name before one of the endings; None where none ends it."""
    stem = PurePath(file).stem
    ending = next((ending for ending in endings if stem.lower().endswith(ending)), None)
    return None if ending is None else stem[: -len(ending)].strip("_-. ")
