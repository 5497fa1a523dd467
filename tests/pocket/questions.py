"""What pictures are asked for, and what the judge says of those that came."""

import math
from dataclasses import dataclass

import torch
from things import COLOURS, KNOWN, WORDS
from world import one_of


@dataclass(frozen=True)
class Question:
    """A picture that is asked for: the words of its things from left to right, its background, its seed."""

    things: tuple
    colour: str
    seed: int

    def prompt(self, called=None):
        """The sentence that asks for it; `called` = {thing: the word to write for it}."""
        phrases = [one_of((called or {}).get(thing, thing)) for thing in self.things]
        if len(phrases) == 2:
            phrases = [f"{phrases[0]} on the left", f"{phrases[1]} on the right"]
        return f"{' and '.join(phrases)} on {one_of(self.colour)} background"


def singles(count, seed=0, things=tuple(KNOWN)):
    """So many questions of one thing, each thing and each colour as often as the others."""
    g = torch.Generator().manual_seed(seed)
    drawn = zip(_draws(things, count, g), _draws(list(COLOURS), count, g), strict=True)
    return [Question((thing,), colour, seed * 10**6 + i) for i, (thing, colour) in enumerate(drawn)]


def pairs(count, seed=1, things=tuple(KNOWN)):
    """So many questions of two different things side by side."""
    g = torch.Generator().manual_seed(seed)
    left, right, colours = _draws(things, count, g), _draws(things, count, g), _draws(list(COLOURS), count, g)
    asked = []
    for i, (one, other, colour) in enumerate(zip(left, right, colours, strict=True)):
        other = things[things.index(one) - 1] if one == other else other
        asked.append(Question((one, other), colour, seed * 10**6 + i))
    return asked


def hues_for(question):
    """A hue in radians for each thing of a question, always the same; two differ by a third of a turn or more."""
    first, more = torch.rand(2, generator=torch.Generator().manual_seed(question.seed)).tolist()
    return [2 * math.pi * hue for hue in (first, first + (1 + more) / 3)][: len(question.things)]


def _draws(words, count, generator):
    # a few are any of the words, not the first of them, which are much alike
    shuffled = torch.randperm(len(words), generator=generator).tolist()
    order = torch.randperm(count, generator=generator).tolist()
    return [words[shuffled[i % len(words)]] for i in order]


def seen(pictures, judge):
    """[(words of the things, background, {word: (x, y)})] of pictures (b, h, w, 3) in 0..1."""
    verdict = judge.look(pictures.movedim(-1, 1).float())
    found = []
    for i, row in enumerate(verdict.seen()):
        words = [WORDS[t] for t in row.nonzero()[:, 0].tolist()]
        places = {word: tuple(verdict.place(WORDS.index(word))[i].tolist()) for word in words}
        found.append((set(words), list(COLOURS)[verdict.background[i]], places))
    return found


def answers(question, picture, judge):
    """{what: whether it is so} of the picture (1, h, w, 3) that came."""
    ((words, colour, places),) = seen(picture, judge)
    wanted = set(question.things)
    said = {"all things": wanted <= words, "nothing else": words <= wanted, "background": colour == question.colour}
    if len(question.things) == 2:
        left, right = question.things
        said["in their places"] = wanted <= words and places[left][0] < places[right][0]
    return said
