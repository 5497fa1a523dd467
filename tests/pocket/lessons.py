"""What text encoder and UNet are shown, in looks that no word names: whole pictures, and windows on single things."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from free import with_free_looks
from things import WORDS
from world import COLOUR_NAMES, GRID, SIDE, captions, draw_scenes, one_of, settled

# Shares of layouts among whole pictures, with more pairs than the world has, since windows show single things; and
# among placed ones, where one thing says what "left" is, and two say whose it is.
WHOLE, PLACED = (0.02, 0.26, 0.43, 0.29), (0, 0.5, 0.3, 0.2)


@dataclass(frozen=True)
class Lesson:
    """`compose(count, generator, own)` gives (Scenes, what render() needs of a window, captions) of pictures of this
    extent, `times` as many as of whole ones for about the same work; `lean` and `begin` are denoiser.noise_loss()'s.
    """

    compose: Callable
    extent: float = 1.0
    times: float = 1.0
    lean: float = 1.0
    begin: float = 0.0


def whole(count, generator, own):
    """Whole pictures; `own` are the things' mean chromas."""
    scenes = settled(with_free_looks(draw_scenes(count, generator, shares=WHOLE), own, generator))
    return scenes, {}, captions(scenes, generator)


def placed(count, generator, own):
    """Whole pictures of one small thing far from the middle, or of two, with captions that say where they stand."""
    scenes = with_free_looks(draw_scenes(count, generator, shares=PLACED), own, generator)
    one = scenes.layout == 1
    scenes.size[one] = torch.rand(int(one.sum()), 1, generator=generator) * 0.16 + 0.34
    along = torch.nn.functional.one_hot(torch.randint(2, (count,), generator=generator), 2).bool()
    ends = torch.where(torch.rand(count, 2, generator=generator) < 0.5, 0.26, 0.74)
    between = torch.rand(count, 2, generator=generator) * 0.2 + 0.4
    scenes.centre[one, 0] = torch.where(along, ends, between)[one]
    scenes = settled(scenes)
    return scenes, {}, captions(scenes, generator, places_too=True)


def windows(count, generator, own, extent=0.5):
    """Windows of so much of the side on single things that nearly fill them: what a word looks like, for less work."""
    scenes = with_free_looks(draw_scenes(count, generator, shares=(0, 1, 0, 0)), own, generator)
    scenes.size[:] = (torch.rand(count, 1, generator=generator) * 0.32 + 0.68) * extent
    scenes.centre[:] = 0.5
    scenes = settled(scenes)
    corner = (1 - extent) / 2 + torch.randint(-1, 2, (count, 2), generator=generator) * GRID / SIDE
    named = zip(scenes.thing[:, 0].tolist(), scenes.colour.tolist(), strict=True)
    texts = [f"{one_of(WORDS[t])} on {one_of(COLOUR_NAMES[c])} background" for t, c in named]
    return scenes, {"side": round(SIDE * extent), "corner": corner, "extent": extent}, texts


LESSONS = {
    "whole": Lesson(whole, lean=0.6, begin=0.25),
    "placed": Lesson(placed, lean=0.25, begin=0.5),
    "half": Lesson(windows, extent=0.5, times=3),
    "most": Lesson(partial(windows, extent=0.75), extent=0.75, times=1.5),
}
# what the steps are on, over and over
CYCLE = ("whole", "placed", "half", "whole", "placed", "most")
