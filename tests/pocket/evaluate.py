"""Measures the pocket model with the judge: are the named things there, in their places, on the right background?

COMFYUI_PATH=... python tests/pocket/evaluate.py --folder output/pocket --count 200
"""

import json
import time
from pathlib import Path

import autoencoder
import torch
from fetch import gather
from judge import WEIGHTS, accuracy, load
from questions import answers, pairs, singles
from samples import draw, loaded, options, sheet
from shares import share
from tqdm import tqdm
from world import load_things

# what the model has to reach: shares of pictures
NEEDED = {"single: all things": 0.9, "single: background": 0.95, "pair: all things": 0.6, "pair: background": 0.95}


def measure(parts, judge, count, seed=0, **sampling):
    """({what: [whether it is so in each picture]}, pictures) over `count` single things and as many pairs."""
    said, pictures = {}, []
    asked = [("single", q) for q in singles(count, 2 * seed)] + [("pair", q) for q in pairs(count, 2 * seed + 1)]
    for kind, question in tqdm(asked):
        pictures.append(draw(parts, question.prompt(), [question.seed], **sampling))
        for what, answer in answers(question, pictures[-1], judge).items():
            said.setdefault(f"{kind}: {what}", []).append(answer)
    return said, torch.cat(pictures)


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("--judge", type=Path, default=WEIGHTS)
    parser.add_argument("--count", type=int, default=200, help="pictures of one thing, and as many of pairs")
    parser.add_argument("--cfg", type=float, default=4.0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--sheet", type=Path, help="also write the first 24 pictures of each kind")
    parser.add_argument("--cache", type=Path, help="also measure judge and autoencoder, on the things kept there")
    args = parser.parse_args()
    parts = loaded(args)
    judge = load(args.judge)
    if args.cache:
        things, vae = load_things(gather(args.cache)), autoencoder.load(args.folder / "autoencoder.safetensors")
        print("judge:", json.dumps(accuracy(judge, things, 1000)))
        print("autoencoder:", json.dumps(autoencoder.measure(vae, things, 200)))
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
