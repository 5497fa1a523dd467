"""The judge: says which things of the world a picture shows, in which cells, and on what background.

python tests/pocket/judge.py --cache output/pocket --minutes 10
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from fetch import gather
from free import in_any_hues
from looks import chroma_of_things
from safetensors.torch import load_file, save_file
from things import WORDS
from tints import tinted
from torch import nn
from training import Training, half, options, prepare
from world import COLOUR_NAMES, draw_scenes, load_things, render

WEIGHTS = Path(__file__).parent / "judge.safetensors"
# pixels of a cell's side; cells that must agree before a thing counts as seen
CELL, ENOUGH = 8, 8


class Block(nn.Module):
    def __init__(self, width, dilation):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, width), nn.GroupNorm(8, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        return x + self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))


class Judge(nn.Module):
    """Pictures (b, 3, h, w) in 0..1 -> per cell: logits of things (0 = none, then WORDS), logits of the background."""

    def __init__(self, width=96):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 5, stride=2, padding=2)
        self.down1 = nn.Sequential(nn.GroupNorm(8, 32), nn.SiLU(), nn.Conv2d(32, 64, 3, stride=2, padding=1))
        self.down2 = nn.Sequential(nn.GroupNorm(8, 64), nn.SiLU(), nn.Conv2d(64, width, 3, stride=2, padding=1))
        self.blocks = nn.ModuleList([Block(width, dilation) for dilation in (1, 2, 4, 1)])
        self.norm = nn.GroupNorm(8, width)
        self.things = nn.Conv2d(width, 1 + len(WORDS), 1)
        self.background = nn.Conv2d(width, len(COLOUR_NAMES), 1)

    def features(self, pictures):
        """What the picture looks like to the judge, at halves of the size down to the cells."""
        stem = self.stem(pictures * 2 - 1)
        first = self.down1(stem)
        x = self.down2(first)
        last = self.blocks[1](self.blocks[0](x))
        return stem, first, x, last

    def forward(self, pictures):
        x = self.features(pictures)[-1]
        for block in self.blocks[2:]:
            x = block(x)
        x = F.silu(self.norm(x))
        return self.things(x), self.background(x).mean((2, 3))

    @torch.no_grad()
    def look(self, pictures):
        """Verdict on pictures (b, 3, h, w) in 0..1."""
        things, background = self(pictures)
        return Verdict(things.float().log_softmax(1), background.float().argmax(1))


@dataclass
class Verdict:
    """cells (b, 1 + things, h/8, w/8): log-probabilities; background (b,): index in COLOUR_NAMES."""

    cells: torch.Tensor
    background: torch.Tensor

    def seen(self):
        """(b, things) which things are in the picture: those that fill enough cells."""
        best = self.cells.argmax(1)
        counts = F.one_hot(best, self.cells.shape[1]).sum((1, 2))
        return counts[:, 1:] >= ENOUGH

    def within(self, region):
        """(b,) index in WORDS of the thing that a region (b, h/8, w/8) of weights shows."""
        scores = (self.cells[:, 1:] * region[:, None]).sum((2, 3))
        return scores.argmax(1)

    def place(self, thing):
        """(b, 2) x, y in 0..1 of the middle of the cells that show this thing; NaN where none does."""
        found = (self.cells.argmax(1) == thing + 1).float()
        h, w = found.shape[1:]
        x = (torch.arange(w, device=found.device) + 0.5) / w
        y = (torch.arange(h, device=found.device) + 0.5) / h
        total = found.sum((1, 2))
        return torch.stack([(found * x).sum((1, 2)) / total, (found * y[:, None]).sum((1, 2)) / total], 1)


def answers(scenes, cover):
    """(cells (b, 2, h/8, w/8) how much of each cell each thing fills, target (b, h/8, w/8): 0 = none, 1 + thing)"""
    cells = F.avg_pool2d(cover, CELL)
    most, which = cells.max(1)
    thing = scenes.thing.to(cover.device)[torch.arange(len(cover), device=cover.device)[:, None, None], which]
    return cells, torch.where(most > 0.4, thing + 1, 0)


def worn(pictures, generator):
    """Half of the pictures blurred, coarsened or noisy, as a decoder may make them."""
    b, _, h, w = pictures.shape
    draw = torch.rand(b, 3, generator=generator).to(pictures.device)
    small = F.interpolate(F.avg_pool2d(pictures, 2), size=(h, w), mode="bilinear")
    smaller = F.interpolate(F.avg_pool2d(pictures, 4), size=(h, w), mode="bilinear")
    mix = torch.where(draw[:, :1] < 0.15, 1.0, draw[:, 2:] * 0.9)[..., None, None]
    soft = torch.where((draw[:, 1] < 0.25)[:, None, None, None], smaller, small)
    grain = torch.randn_like(pictures) * 0.06 * draw[:, 2, None, None, None]
    return torch.where((draw[:, 0] < 0.5)[:, None, None, None], pictures.lerp(soft, mix) + grain, pictures).clamp(0, 1)


def load(path=WEIGHTS, device="cpu"):
    """The trained judge."""
    judge = Judge()
    judge.load_state_dict({k: v.float() for k, v in load_file(path).items()})
    return judge.to(device).eval().requires_grad_(False)


def drawn(count, generator, things, own=None):
    """(Scenes, pictures, cover) of all things; in any hues if their chromas `own` are given."""
    scenes = draw_scenes(count, generator, things=range(len(WORDS)))
    scenes = (scenes if own is None else in_any_hues(scenes, own, generator)).to(things[0].device)
    return scenes, *render(scenes, things)


def accuracy(judge, things, count, own=None, seed=10**6):
    """Shares of right answers on fresh pictures of all things: {regions, pictures, backgrounds}."""
    generator = torch.Generator().manual_seed(seed)
    right = dict.fromkeys(("regions", "pictures", "backgrounds"), 0)
    regions = 0
    for first in range(0, count, 50):
        scenes, pictures, cover = drawn(min(50, count - first), generator, things, own)
        cells, _ = answers(scenes, cover)
        verdict = judge.look(pictures)
        for k in (0, 1):
            there = (scenes.thing[:, k] >= 0) & (cells[:, k].sum((1, 2)) >= ENOUGH)
            right["regions"] += ((verdict.within(cells[:, k]) == scenes.thing[:, k]) & there).sum().item()
            regions += there.sum().item()
        named = F.one_hot(scenes.thing + 1, 1 + len(WORDS)).sum(1)[:, 1:].bool()
        right["pictures"] += (verdict.seen() == named).all(1).sum().item()
        right["backgrounds"] += (verdict.background == scenes.colour).sum().item()
    return {"regions": right["regions"] / regions} | {k: right[k] / count for k in ("pictures", "backgrounds")}


def train(args):
    """Trains and writes the weights; returns the accuracy on things in any hues, and on plain ones."""
    plain = load_things(gather(args.cache), args.device)
    own, things = chroma_of_things(plain).cpu(), tinted(plain)
    torch.manual_seed(0)
    training = Training("judge", load(args.start).requires_grad_(True) if args.start else Judge(), args)
    # most cells show nothing
    weight = torch.ones(1 + len(WORDS), device=args.device)
    weight[0] = 0.3

    def loss_of(step):
        generator = torch.Generator().manual_seed(step)
        count = args.batch // 2
        sets = [drawn(count, generator, plain), drawn(args.batch - count, generator, things, own)]
        target = torch.cat([answers(scenes, cover)[1] for scenes, _, cover in sets])
        shown = torch.cat([pictures for _, pictures, _ in sets])
        with half(args.device):
            cells, background = training.network(worn(shown, generator))
        where = F.cross_entropy(cells.float(), target, weight)
        colour = F.cross_entropy(background.float(), torch.cat([scenes.colour for scenes, _, _ in sets]))
        return where + 0.2 * colour, {"cells": where.detach(), "colour": colour.detach()}

    training.run(loss_of)
    reached = {"any hues": accuracy(training.network, things, args.measure, own)}
    reached["own hues"] = accuracy(training.network, plain, args.measure)
    save_file({k: v.half().cpu().contiguous() for k, v in training.average.items()}, args.weights)
    return training, reached


if __name__ == "__main__":
    parser = options(__doc__, rate=2e-3)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    done, figures = train(prepare(parser.parse_args(), batches=(32, 256)))
    for kind, shares in figures.items():
        print(f"{done.steps} steps, {kind}:", {name: f"{value:.1%}" for name, value in shares.items()})
