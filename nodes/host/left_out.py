"""Where in a run our attention is left out for rows of the prompt: there the negative's rows go without it too."""

from .rows import COND, UNCOND


class LeftOut:
    """What lives for one run. A place is (what a technique is called, host key of a block)."""

    def __init__(self):
        self._places, self._served = set(), set()
        # whether rows of the negative were served at a place before it was known
        self.too_late = False

    def note(self, place, chunks):
        """The rows of these chunks went without a technique at a place."""
        if any(chunk.role == COND for chunk in chunks) and place not in self._places:
            self._places.add(place)
            if place in self._served:
                self.too_late = True

    def serves(self, place, chunk):
        """Whether the rows of a chunk may have the technique at a place: the negative's only if the prompt's do."""
        if chunk.role != UNCOND:
            return True
        # first: the prompt's rows may run in another thread at the same time
        self._served.add(place)
        return place not in self._places


def twice_if_too_late(evaluate, run):
    """The function `evaluate`, which runs again where the negative's rows came before it was known."""

    def evaluated(*args, **kwargs):
        result = evaluate(*args, **kwargs)
        left_out = left_out_of(run)
        if left_out.too_late:
            left_out.too_late = False
            result = evaluate(*args, **kwargs)
        return result

    return evaluated


def left_out_of(run):
    """The LeftOut of a run."""
    return run.state("left out", LeftOut)
