"""The losses of a training as a curve on its node, while it runs and when it ends."""

import math
import time

from PIL import ImageDraw

from .node_pictures import running_node, show_picture
from .panels import INK, panel, write

_SIZE, _LEFT, _TOP, _BOTTOM = (360, 220), 64, 12, 28
# Seconds between two pictures while a training runs.
_EVERY = 3.0
_LINE = (255, 170, 60)


class LossCurve:
    """Takes the loss of each step of this run; steps of an earlier run are not in it."""

    def __init__(self, before, label="plain"):
        """before: the loss of plain noise, or of another start, drawn as a level to get below, with a label."""
        self.node, self.before, self.label = running_node(), float(before), label
        self.points, self._shown = [], time.monotonic()

    def add(self, step, loss):
        """One step more."""
        self.points.append((step, loss))
        if self.node is not None and time.monotonic() - self._shown > _EVERY:
            self.show()

    def show(self):
        """Shows it on the node, if there is anything to show."""
        self._shown = time.monotonic()
        if self.node is not None and len(self.points) > 1:
            show_picture(self.picture(), self.node)

    def picture(self):
        """A PIL picture: the losses over the steps on a logarithmic scale, with the level to get below."""
        made = panel(_SIZE)
        draw = ImageDraw.Draw(made)
        losses = [max(loss, 1e-12) for _, loss in self.points]
        level = max(self.before, 1e-12)
        low, high = math.log(min(*losses, level) * 0.9), math.log(max(*losses, level) * 1.1)
        first, last = self.points[0][0], self.points[-1][0]

        def place(step, loss):
            x = _LEFT + (_SIZE[0] - _LEFT - 10) * (step - first) / max(1, last - first)
            return x, _TOP + (_SIZE[1] - _TOP - _BOTTOM) * (high - math.log(loss)) / (high - low)

        draw.line([place(first, level), place(last, level)], fill=(90, 90, 96))
        draw.line([place(step, loss) for (step, _), loss in zip(self.points, losses)], fill=_LINE, width=2)
        write(draw, (4, place(first, level)[1] - 8), self.label, 12)
        for loss in (max(losses), min(losses)):
            write(draw, (4, place(first, loss)[1] - 8), f"{loss:.4f}", 12, _LINE)
        write(draw, (_LEFT, _SIZE[1] - 22), f"loss, steps {first + 1} to {last + 1}", 13, INK)
        return made
