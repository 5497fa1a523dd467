"""The lists of conditionings that a step predicts: the guider's own, or others that a technique runs in their place."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from .rows import EXCHANGED, LISTS, named_lists
from .when import moment_of


@dataclass(frozen=True)
class OtherLists:
    """What a technique runs in place of the lists of a step."""

    lists: tuple  # of (Listed, entries or None)
    fold: Callable  # the predictions of these lists -> those of the step's own


def run_lists(techniques, conds, options, run, sigma, predict):
    """The predictions of a step's lists of entries: predict(lists, transformer options), or what a technique makes.

    One technique alone may exchange them: the first that does.
    """
    lists = named_lists(conds, run.conds())
    # read where a technique asks: a number of the device has to be waited for
    moment = cache(lambda: moment_of(run.level(sigma), run.schedule(options)))
    for technique in techniques:
        other = technique.other_lists(lists, conds, run, moment)
        if other is not None:
            lists, entries = zip(*other.lists, strict=True)
            return other.fold(predict(list(entries), {**options, LISTS: lists, EXCHANGED: True}))
    return predict(conds, {**options, LISTS: lists})
