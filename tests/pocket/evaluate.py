"""Measures the pocket model with the judge: are the named things there, in their places, on the right background?

COMFYUI_PATH=... python tests/pocket/evaluate.py --folder output/pocket --count 200
"""

import argparse
import json
import math
import time
from pathlib import Path

import autoencoder
import torch
from fetch import gather
from judge import WEIGHTS, accuracy, load
from samples import ROOT, draw, pack, sheet
from things import COLOURS, KNOWN, WORDS
from world import load_things, one_of

# what the model has to reach: shares of pictures
NEEDED = {"single": 0.9, "pair": 0.6, "background": 0.95}


def questions(count, generator):
    """(prompt, things, colour) of so many single things and so many pairs, each thing as often as the others."""
    known, colours = list(KNOWN), list(COLOURS)

    def draws(words):
        order = [i % len(words) for i in range(count)]
        return [words[order[i]] for i in torch.randperm(count, generator=generator).tolist()]

    for thing, colour in zip(draws(known), draws(colours), strict=True):
        yield f"{one_of(thing)} on {one_of(colour)} background", (thing,), colour
    for first, second, colour in zip(draws(known), draws(known[1:] + known[:1]), draws(colours), strict=True):
        second = second if second != first else known[known.index(first) - 1]
        left, right = f"{one_of(first)} on the left", f"{one_of(second)} on the right"
        yield f"{left} and {right} on {one_of(colour)} background", (first, second), colour


def wilson(right, count):
    """The 95 % confidence interval of a share (Wilson 1927)."""
    z, p = 1.96, right / count
    middle = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    return middle - half, middle + half


def measure(parts, judge, count, seed=0, **sampling):
    """({what: (right, count)}, [(picture, prompt)]) over `count` single things and as many pairs."""
    generator = torch.Generator().manual_seed(seed)
    tally = {what: [0, 0] for what in ("single", "pair", "either", "placed", "background")}
    shown = []
    for i, (prompt, things, colour) in enumerate(questions(count, generator)):
        picture = draw(parts, prompt, [seed * 10**6 + i], **sampling)
        verdict = judge.look(picture.movedim(-1, 1).float())
        seen = {WORDS[t] for t in verdict.seen()[0].nonzero()[:, 0].tolist()}
        shown.append((picture, prompt))
        answers = {"background": list(COLOURS)[verdict.background[0]] == colour}
        if len(things) == 1:
            answers["single"] = things[0] in seen
        else:
            answers |= {"pair": set(things) <= seen, "either": bool(set(things) & seen)}
            left, right = (verdict.place(WORDS.index(thing))[0, 0].item() for thing in things)
            answers["placed"] = answers["pair"] and left < right
        for what, answer in answers.items():
            tally[what][0] += answer
            tally[what][1] += 1
    return {what: tuple(value) for what, value in tally.items()}, shown


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "nodes" / "pocket", help="where the weights are")
    parser.add_argument("--judge", type=Path, default=WEIGHTS)
    parser.add_argument("--count", type=int, default=200, help="pictures of one thing, and as many of pairs")
    parser.add_argument("--cfg", type=float, default=4.0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--sheet", type=Path, help="also write the first 64 pictures")
    parser.add_argument("--cache", type=Path, help="also measure judge and autoencoder, on the things kept there")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    pack()
    from pack.nodes.host.pocket import load_pocket

    judge = load(args.judge)
    if args.cache:
        things, vae = load_things(gather(args.cache)), autoencoder.load(args.folder / "autoencoder.safetensors")
        print("judge:", json.dumps(accuracy(judge, things, 1000)))
        print("autoencoder:", json.dumps(autoencoder.measure(vae, things, 200)))
    began = time.monotonic()
    parts = load_pocket(args.folder)
    tally, shown = measure(parts, judge, args.count, cfg=args.cfg, steps=args.steps)
    for what, (right, count) in tally.items():
        low, high = wilson(right, count)
        needed = f", needed {NEEDED[what]:.0%}" if what in NEEDED else ""
        print(f"{what}: {right / count:.1%} of {count} ({low:.1%} to {high:.1%}{needed})")
    print(json.dumps({what: right / count for what, (right, count) in tally.items()}))
    print(f"{(time.monotonic() - began) / len(shown):.2f} s per picture")
    if args.sheet:
        sheet(torch.cat([picture for picture, _ in shown[:64]]), 8).save(args.sheet)
