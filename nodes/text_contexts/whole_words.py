"""Words within a text that stand for themselves: "cat" is none in "category", and CLIP does not tell Cat from cat."""

import re

_NO_LETTER_BEFORE, _NO_LETTER_BEHIND = r"(?<![^\W\d_])", r"(?![^\W\d_])"


def standing_alone(phrase):
    """A pattern that finds a phrase where no further letter stands at its letters, in capitals or not."""
    before = _NO_LETTER_BEFORE if phrase[0].isalpha() else ""
    behind = _NO_LETTER_BEHIND if phrase[-1].isalpha() else ""
    return re.compile(before + re.escape(phrase) + behind, re.IGNORECASE)


def is_ordinary(name):
    """Whether a name is made of letters, digits, underscores and spaces alone, as ordinary text is."""
    return re.fullmatch(r"[\w\s]+", name) is not None
