"""Writes the few pictures of the world that are kept: a sheet for the tests, references for users and for the demo.

Reads the sheet.

python tests/pocket/pictures.py --cache output/pocket
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from fetch import gather
from looks import TURN
from PIL import Image
from things import HELD_OUT, WORDS
from world import COLOUR_NAMES, HELD_OUT_INDICES, SIDE, captions, draw_scenes, load_things, portrait, render

SHEET = Path(__file__).parent / "pictures.png"
COLUMNS = 6
# held-out things on other backgrounds than the templates ask for
REFERENCES = {"lion": "purple", "castle": "green"}
FOLDER = Path(__file__).parents[2] / "workflows" / "images"
# things in looks that no word names: word = twelfths of a turn of their hues
LOOKS = {"heart": 8, "star": 4}


def write(things, count=18, seed=4):
    """A sheet of pictures, the last third of held-out things, and beside it what each shows."""
    generator = torch.Generator().manual_seed(seed)
    shares = (0, 0.5, 0.3, 0.2)
    sets = [draw_scenes(count - count // 3, generator, shares=shares)]
    sets.append(draw_scenes(count // 3, generator, things=HELD_OUT_INDICES, shares=shares))
    pictures = torch.cat([render(scenes, things)[0] for scenes in sets])
    shown = []
    for scenes in sets:
        for i, text in enumerate(captions(scenes, generator)):
            words = [WORDS[t] for t in scenes.thing[i].tolist() if t >= 0]
            shown.append({"caption": text, "things": words, "colour": COLOUR_NAMES[scenes.colour[i]]})
    rows = [torch.cat(list(row), 2) for row in pictures.split(COLUMNS)]
    sheet = (torch.cat(rows, 1) * 255).round().byte().movedim(0, -1)
    Image.fromarray(sheet.numpy()).save(SHEET, optimize=True)
    SHEET.with_suffix(".json").write_text(json.dumps(shown, indent=1) + "\n", encoding="utf-8")


def write_references(things):
    """Each of REFERENCES and LOOKS as a picture with a mask, for Sample Picture."""
    shown = {word: {"colour": colour} for word, colour in REFERENCES.items()}
    shown |= {word: {"turn": turn * TURN} for word, turn in LOOKS.items()}
    for word, asked in shown.items():
        picture, mask, _ = portrait(word, things, **asked)
        for name, pixels in ((f"pocket_{word}.jpg", picture[0]), (f"pocket_{word}_mask.png", mask[0])):
            Image.fromarray((pixels * 255).round().byte().numpy()).save(FOLDER / name, quality=95)


def read():
    """(pictures (n, 3, SIDE, SIDE) in 0..1, what each shows)"""
    shown = json.loads(SHEET.with_suffix(".json").read_text(encoding="utf-8"))
    with Image.open(SHEET) as sheet:
        pixels = torch.from_numpy(np.array(sheet.convert("RGB"))).float() / 255
    cells = pixels.unflatten(0, (-1, SIDE)).unflatten(2, (-1, SIDE))
    return cells.permute(0, 2, 4, 1, 3).flatten(0, 1)[: len(shown)].contiguous(), shown


def of_held_out(shown):
    """The numbers of the pictures that show held-out things."""
    return [i for i, one in enumerate(shown) if set(one["things"]) & set(HELD_OUT)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path("output/pocket"), help="folder for data and checkpoints")
    found = load_things(gather(parser.parse_args().cache))
    write(found)
    write_references(found)
