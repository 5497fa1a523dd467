"""What to say of a file that a loader of words was given and does not read."""

from ..files.told_kinds import KINDS, kind_of
from ..host.messages import input_error


def not_the_kind(contents, file, wanted):
    """The exception for a file's contents where a loader wants another of KINDS: what it is, which node reads it."""
    kind, article = kind_of(contents), KINDS[wanted][0]
    if kind in (None, wanted):
        return input_error(f"{file} is not {article}; choose one")
    what, node = KINDS[kind]
    return input_error(f"{file} is {what}, not {article}; load it with {node}")
