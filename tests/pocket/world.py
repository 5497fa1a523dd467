"""Pictures of the pocket world: one or two things on a coloured background, and the caption that says so."""

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from looks import turned
from things import COLOURS, HELD_OUT, KNOWN, WORDS

SIDE = 128
COLOUR_NAMES = tuple(COLOURS)
KNOWN_INDICES = tuple(WORDS.index(word) for word in KNOWN)
HELD_OUT_INDICES = tuple(WORDS.index(word) for word in HELD_OUT)
# shares of pictures with no thing, with one, with two side by side, with two one above the other
LAYOUTS = ("empty", "one", "beside", "above")
SHARES = (0.02, 0.48, 0.3, 0.2)
SMALL, BIG, OFF_CENTRE = 0.42, 0.68, 0.13
# shares of captions that could name places and do not, and of the others those that name them before their things:
# what reads from left to right then knows of a thing where it stands
NO_PLACE, PLACE_FIRST = 0.15, 0.3
ENDS = {"beside": ("on the left", "on the right"), "above": ("at the top", "at the bottom")}
# what settled() keeps of sizes, and of places: multiples of a latent's side in pixels
SIZES, GRID = (0.375, 0.4375, 0.5625, 0.6875, 0.8125), 8


@dataclass(frozen=True)
class Scenes:
    """b pictures of up to two things; lengths and places are shares of the picture's side, y runs down."""

    layout: torch.Tensor  # (b,) index in LAYOUTS
    thing: torch.Tensor  # (b, 2) index in WORDS, -1 = none
    centre: torch.Tensor  # (b, 2, 2) x, y
    size: torch.Tensor  # (b, 2) the longer side of the thing
    flip: torch.Tensor  # (b, 2) -1 mirrors the thing
    angle: torch.Tensor  # (b, 2) radians
    light: torch.Tensor  # (b, 2) factor
    colour: torch.Tensor  # (b,) index in COLOUR_NAMES
    base: torch.Tensor  # (b, 3) the background in the picture's middle
    slope: torch.Tensor  # (b, 2) how much lighter it gets to the right and down
    turn: torch.Tensor  # (b, 2) radians by which the hues of the thing are turned

    def __len__(self):
        return len(self.layout)

    def to(self, device):
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def draw_scenes(count, generator, things=KNOWN_INDICES, shares=SHARES):
    """Random Scenes of the things with these indices, drawn on the CPU."""

    def uniform(low, high, *shape):
        return torch.rand(count, *shape, generator=generator) * (high - low) + low

    layout = torch.multinomial(torch.tensor(shares, dtype=torch.float32), count, replacement=True, generator=generator)
    pool = torch.tensor(things)
    first = torch.randint(len(pool), (count,), generator=generator)
    # never the same thing twice in a picture, unless there is only one
    second = (first + torch.randint(1, max(len(pool), 2), (count,), generator=generator)) % len(pool)
    thing = torch.stack([pool[first], pool[second]], 1)
    thing[layout == 0] = -1
    thing[layout <= 1, 1] = -1

    one = layout <= 1
    size = torch.where(one[:, None], uniform(0.34, 0.86, 1), uniform(0.34, 0.5, 2))
    room = (1 - size) / 2
    free = 0.5 + (uniform(-1, 1, 2, 2) * room[..., None])
    side = torch.tensor([0.26, 0.74]) + uniform(-0.035, 0.035, 2)
    beside, above = (layout == 2)[:, None], (layout == 3)[:, None]
    x = torch.where(beside, side, free[..., 0])
    y = torch.where(above, side, free[..., 1])

    colour = torch.randint(len(COLOUR_NAMES), (count,), generator=generator)
    base = torch.tensor(list(COLOURS.values()))[colour] + uniform(-0.03, 0.03, 3)
    flip = torch.where(uniform(0, 1, 2) < 0.5, -1.0, 1.0)
    return Scenes(
        layout, thing, torch.stack([x, y], -1), size.expand(count, 2).clone(), flip, uniform(-0.2, 0.2, 2),
        uniform(0.92, 1.06, 2), colour, base, uniform(-0.07, 0.07, 2), torch.zeros(count, 2),
    )  # fmt: skip


def settled(scenes, side=SIDE):
    """The Scenes with things upright, in SIZES, their middles on the GRID of a picture of this side.

    What the UNet learns is then the same latents over and over, moved by whole cells: all it needs to know of a thing.
    """
    sizes = torch.tensor(SIZES)
    size = sizes[(scenes.size[..., None] - sizes).abs().argmin(-1)]
    centre = (scenes.centre * side / GRID).round() * GRID / side
    ones = torch.ones_like(size)
    return replace(scenes, size=size, centre=centre, flip=ones, angle=0 * ones, light=ones)


def load_things(path, device="cpu"):
    """Premultiplied pictures of all things: a list of (things, 4, s, s) at s = 128, 64, 32."""
    with np.load(path) as file:
        levels = [torch.from_numpy(np.stack([file[word] for word in WORDS])).to(device).float() / 255]
    levels[0] = rearrange(levels[0], "n h w c -> n c h w")
    levels[0] = torch.cat([levels[0][:, :3] * levels[0][:, 3:], levels[0][:, 3:]], 1)
    while levels[-1].shape[-1] > 32:
        levels.append(F.avg_pool2d(levels[-1], 2))
    return levels


def render(scenes, things, side=SIDE, corner=None, extent=1.0):
    """(pictures (b, 3, side, side) in 0..1, cover (b, 2, side, side) of the things) on the things' device.

    With a corner (b, 2) only the window from there on is drawn, `extent` of the picture wide and high.
    """
    scenes = scenes.to(things[0].device)
    device, b = things[0].device, len(scenes)
    ticks = (torch.arange(side, device=device) + 0.5) / side * extent
    corner = torch.zeros(b, 2, device=device) if corner is None else corner.to(device)
    x = repeat(corner[:, :1] + ticks, "b w -> b h w", h=side)
    y = repeat(corner[:, 1:] + ticks, "b h -> b h w", w=side)

    slope = scenes.slope[:, :, None, None] * 2
    light = 1 + slope[:, 0] * (x - 0.5) + slope[:, 1] * (y - 0.5)
    picture = scenes.base[:, :, None, None] * light[:, None]
    covers = []
    for k in (1, 0):
        layer = _layer(scenes, k, x, y, things, side / extent)
        cover = layer[:, 3:]
        picture = picture * (1 - cover) + layer[:, :3] * scenes.light[:, k, None, None, None]
        # what lies in front hides what lies behind
        covers = [c * (1 - cover) for c in covers] + [cover]
    return picture.clamp(0, 1), torch.cat(covers[::-1], 1)


def portrait(word, things, seed=0, colour=None, turn=0.0):
    """(picture (1, SIDE, SIDE, 3), mask (1, SIDE, SIDE) of the thing, background) of one thing, upright and large."""
    scenes = draw_scenes(1, torch.Generator().manual_seed(seed), things=(WORDS.index(word),), shares=(0, 1, 0, 0))
    scenes.centre[:], scenes.size[:], scenes.angle[:], scenes.flip[:], scenes.turn[:] = 0.5, 0.75, 0.0, 1.0, turn
    if colour is not None:
        scenes.colour[:] = COLOUR_NAMES.index(colour)
        scenes.base[:] = torch.tensor(COLOURS[colour])
    picture, cover = render(scenes, things)
    return picture.movedim(1, -1), (cover[:, 0] > 0.5).float(), COLOUR_NAMES[scenes.colour[0]]


def _layer(scenes, k, x, y, things, pixels):
    """Premultiplied (b, 4, h, w) of the k-th things alone; `pixels` = pixels per picture side."""
    size, angle = scenes.size[:, k, None, None], scenes.angle[:, k, None, None]
    dx, dy = x - scenes.centre[:, k, 0, None, None], y - scenes.centre[:, k, 1, None, None]
    u = (angle.cos() * dx + angle.sin() * dy) * scenes.flip[:, k, None, None]
    v = angle.cos() * dy - angle.sin() * dx
    grid = torch.stack([u, v], -1) * 2 / size[..., None]
    layer = grid.new_zeros(len(scenes), 4, *x.shape[1:])
    # the level whose pixels are nearest to the picture's, so that bilinear reading neither aliases nor blurs
    level = (things[0].shape[-1] / (scenes.size[:, k] * pixels)).log2().round().clamp(0, len(things) - 1)
    for i, pictures in enumerate(things):
        chosen = ((level == i) & (scenes.thing[:, k] >= 0)).nonzero()[:, 0]
        if len(chosen):
            read = F.grid_sample(pictures[scenes.thing[chosen, k]], grid[chosen], align_corners=False)
            layer[chosen] = read
    return turned(layer, scenes.turn[:, k]) if scenes.turn.any() else layer


def caption(scenes, i, generator, places_too=False):
    """A true sentence about picture i; if asked, it says where things stand wherever it can."""

    def chance(share):
        return torch.rand((), generator=generator) < share

    words = [WORDS[t] for t in scenes.thing[i].tolist() if t >= 0]
    background = f"{COLOUR_NAMES[scenes.colour[i]]} background"
    if not words:
        return one_of(background)
    phrases, says = [one_of(word) for word in words], places_too or not chance(NO_PLACE)
    if len(words) == 2:
        places = ENDS[LAYOUTS[scenes.layout[i]]]
    else:
        x, y = scenes.centre[i, 0].tolist()
        size = scenes.size[i, 0].item()
        named = "small " if size < SMALL else "big " if size > BIG else ""
        phrases = [one_of((named if chance(0.5) else "") + words[0])]
        offset, axis, far = max((abs(x - 0.5), "beside", x > 0.5), (abs(y - 0.5), "above", y > 0.5))
        places, says = ENDS[axis][far:], says and offset > OFF_CENTRE
    if says:
        first = chance(PLACE_FIRST)
        said = zip(phrases, places, strict=False)
        phrases = [f"{place} {phrase}" if first else f"{phrase} {place}" for phrase, place in said]
    text = " and ".join(phrases[::-1] if chance(0.5) else phrases)
    if chance(0.07):
        return text
    return text + (f", {background}" if chance(0.2) else f" on {one_of(background)}")


def one_of(words):
    """The words with their article."""
    return f"{'an' if words[0] in 'aeiou' and not words.startswith('unicorn') else 'a'} {words}"


def captions(scenes, generator, places_too=False):
    """One sentence for each picture."""
    return [caption(scenes, i, generator, places_too) for i in range(len(scenes))]
