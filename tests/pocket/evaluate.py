"""Measures the pocket model with the judge: are the named things there, in their places, on the right background, and
do their looks spread where no word names them?

COMFYUI_PATH=... python tests/pocket/evaluate.py --folder output/pocket --count 200
"""

import json
import math
import time
from pathlib import Path

import autoencoder
import torch
from fetch import gather
from judge import WEIGHTS, accuracy, load
from looks import chroma_of_things
from questions import answers, pairs, singles
from samples import draw, loaded, options, sheet
from shares import Z95, share
from sight import hues_of, resultant, sightings
from tints import tinted
from tqdm import tqdm
from world import load_things

# what the model has to reach: shares of pictures
NEEDED = {
    "single: all things": 0.95,
    "single: background": 0.98,
    "pair: all things": 0.85,
    "pair: background": 0.98,
    "pair: in their places": 0.75,
}
# the most that the hues of one prompt's pictures may agree
AGREE = 0.6


def measure(parts, judge, count, seed=0, **sampling):
    """({what: [whether it is so in each picture]}, pictures) over `count` single things and as many pairs."""
    said, pictures = {}, []
    asked = [("single", q) for q in singles(count, 2 * seed)] + [("pair", q) for q in pairs(count, 2 * seed + 1)]
    for kind, question in tqdm(asked):
        pictures.append(draw(parts, question.prompt(), [question.seed], **sampling))
        for what, answer in answers(question, pictures[-1], judge).items():
            said.setdefault(f"{kind}: {what}", []).append(answer)
    return said, torch.cat(pictures)


def agreement(parts, judge, prompts, seeds, **sampling):
    """The resultant of the hues of so many seeds' pictures, for each of so many prompts of one thing."""
    found = []
    for question in tqdm(singles(prompts, seed=7)):
        pictures = draw(parts, question.prompt(), range(question.seed, question.seed + seeds), **sampling)
        verdict = judge.look(pictures.movedim(-1, 1))
        hues = [hues_of(question.things, p, sightings(p, verdict, i))[0] for i, p in enumerate(pictures)]
        found.append(resultant(hues))
    return [length for length in found if not math.isnan(length)]


def by_chance(seeds, draws=10000):
    """The resultant of so many hues that are drawn evenly, on average."""
    hues = torch.rand(draws, seeds, generator=torch.Generator().manual_seed(0)) * 2 * math.pi
    return torch.polar(torch.ones(()), hues).mean(1).abs().mean().item()


def mean(values):
    """(mean, low, high) with its 95 % interval."""
    values = torch.tensor(values)
    half = Z95 * values.std().item() / math.sqrt(len(values))
    return values.mean().item(), values.mean().item() - half, values.mean().item() + half


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("--judge", type=Path, default=WEIGHTS)
    parser.add_argument("--count", type=int, default=200, help="pictures of one thing, and as many of pairs")
    parser.add_argument("--cfg", type=float, default=4.0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--prompts", type=int, default=20, help="prompts whose pictures' hues are compared; 0: none")
    parser.add_argument("--seeds", type=int, default=8, help="pictures of each of them")
    parser.add_argument("--cfgs", type=float, nargs="+", default=[2.0, 3.0, 4.0], help="at each of these")
    parser.add_argument("--sheet", type=Path, help="also write the first 24 pictures of each kind")
    parser.add_argument("--cache", type=Path, help="also measure judge and autoencoder, on the things kept there")
    args = parser.parse_args()
    parts = loaded(args)
    judge = load(args.judge)
    if args.cache:
        things, vae = load_things(gather(args.cache)), autoencoder.load(args.folder / "autoencoder.safetensors")
        print("judge:", json.dumps(accuracy(judge, things, 1000)))
        print("judge, any hues:", json.dumps(accuracy(judge, tinted(things), 1000, chroma_of_things(things))))
        print("autoencoder:", json.dumps(autoencoder.measure(vae, things, 200)))
    if args.count:
        began = time.monotonic()
        said, pictures = measure(parts, judge, args.count, cfg=args.cfg, steps=args.steps)
        for what, found in said.items():
            p, low, high = share(found)
            needed = f", needed {NEEDED[what]:.0%}" if what in NEEDED else ""
            print(f"{what}: {p:.1%} of {len(found)} ({low:.1%} to {high:.1%}{needed})")
        print(f"{(time.monotonic() - began) / len(pictures):.2f} s per picture")
        if args.sheet:
            shown = torch.cat([pictures[:24], pictures[args.count : args.count + 24]])
            sheet(shown, 8).save(args.sheet)
    for cfg in args.cfgs if args.prompts else []:
        length, low, high = mean(agreement(parts, judge, args.prompts, args.seeds, cfg=cfg, steps=args.steps))
        print(
            f"resultant of hues at cfg {cfg:g}: {length:.2f} ({low:.2f} to {high:.2f}, needed at most {AGREE}; "
            f"an even spread of {args.seeds} has {by_chance(args.seeds):.2f})"
        )
