"""What text encoder and UNet are shown: whole pictures, and windows on single things, in looks that no word names."""

import torch
from free import with_free_looks
from things import WORDS
from world import COLOUR_NAMES, GRID, SIDE, captions, draw_scenes, one_of, settled

# what the steps are on, over and over: whole pictures, or windows of half or three quarters of their side; and how many
# times as many of them, for about the same work
CYCLE = (1.0, 1.0, 0.5, 1.0, 1.0, 0.75)
TIMES = {1.0: 1, 0.5: 3, 0.75: 1.5}
# shares of layouts among whole pictures: more pairs than the world has, since windows show single things
SHARES = (0.02, 0.26, 0.43, 0.29)


def whole(count, generator, own):
    """(Scenes, what render() needs of a window, captions) of whole pictures; `own` are the things' mean chromas."""
    scenes = with_free_looks(draw_scenes(count, generator, shares=SHARES), own, generator)
    scenes = settled(scenes)
    return scenes, {}, captions(scenes, generator)


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
