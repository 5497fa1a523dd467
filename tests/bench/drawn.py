"""Pictures that the pocket model itself draws for an effect benchmark: what is shown to it, or edited."""

import math
from functools import cache

from effects import UnaskedError

# seeds of one picture lie so far from those of another
TRIES, APART = 20, 10**9


class Drawer:
    """Draws what is asked for until the judge finds it in the picture."""

    def __init__(self, options, parts, judge):
        self.options, self.parts, self.judge = options, parts, judge
        self.draw = cache(self._draw)

    def _draw(self, question):
        """(picture (1, h, w, 3), its mask (1, h, w), the hue of its first thing) of a Question, always the same."""
        from questions import answers
        from samples import draw
        from sight import hue_in

        steps, cfg = self.options.steps, self.options.cfg
        for number in range(1, TRIES + 1):
            picture = draw(self.parts, question.prompt(), [question.seed + number * APART], steps=steps, cfg=cfg)
            hue = hue_in(picture[0])
            if all(answers(question, picture, self.judge).values()) and not math.isnan(hue):
                return picture, self._mask(picture), hue
        raise UnaskedError(f"in {TRIES} tries the model never drew {question.prompt()}")

    def _mask(self, picture):
        """What stands (1, h, w) where the judge sees things, or in a cell beside."""
        from looks import standing
        from sight import backdrop
        from torch.nn.functional import interpolate, max_pool2d

        cells = self.judge.look(picture.movedim(-1, 1).float()).cells.argmax(1, keepdim=True) > 0
        region = interpolate(max_pool2d(cells.float(), 3, 1, 1), picture.shape[1:3])[0, 0]
        return standing(picture[0], backdrop(picture[0]), region)[None].float()


def elsewhere(question, things=None):
    """The Question of these things, or of its own, on another background."""
    from questions import Question
    from things import COLOURS

    colours = list(COLOURS)
    colour = colours[(colours.index(question.colour) + 5) % len(colours)]
    return Question(things or question.things, colour, question.seed)
