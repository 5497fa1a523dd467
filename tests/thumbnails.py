"""Draws the thumbnails of all templates, or of those that are named: pictures of the pocket model, without and with.

Help pages show some of them.

COMFYUI_PATH=... python tests/thumbnails.py ["Template" ...]

Templates for real checkpoints show what the same techniques do to the pocket model. Run it again when the model or a
template has changed.
"""

import io
import json
import os
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from setup.host_server import Server, pictures
from support import help_pictures

ROOT = Path(__file__).parents[1]
WORKFLOWS = ROOT / "workflows"
SIDE, MARGIN, TITLE, CAPTION = 512, 16, 56, 26
PAPER, INK, GREY = "#f4f4f2", "#111", "#555"
TOUR, NOISE, TAUGHT = "A tour to start with", "Pocket golden noise", "Pocket LoRA and ED-LoRA"
WORDS = "Pocket words"
# (template that is run, titles of two of its nodes)
REFERENCE = (TOUR, "Without the reference", "With the reference")
CONCEPTS = (TOUR, "One prompt alone", "Each in its place")
PICTURES = (TOUR, "Prompt alone", "With the pictures")
SIZE = (TOUR, "Without both", "With both")
GOLDEN, REDENOISED = (NOISE, "Plain noise", "Golden Noise"), (NOISE, "Plain noise", "Re-denoise")
STAGES = ("Pocket stage prompts", "Without", "With stages")
LORA, ED_LORA = (TAUGHT, "Without", "With the LoRA"), (TAUGHT, "Without", "With the ED-LoRA")
KRONA, NETI = (WORDS, "Without", "With KronA"), (WORDS, "Without", "With NeTI")
DELTA, ALIGNED = (WORDS, "Without", "With Custom Diffusion"), (WORDS, "And a heart", "And a heart, aligned")
# {template: pairs of pictures}
SHOWN = {
    TOUR: (REFERENCE, CONCEPTS, PICTURES, SIZE),
    "Pocket references": (REFERENCE,),
    "Pocket concepts": (CONCEPTS,),
    "Pocket image prompts": (PICTURES,),
    TAUGHT: (LORA, ED_LORA),
    WORDS: (KRONA, NETI, DELTA, ALIGNED),
    NOISE: (GOLDEN, REDENOISED),
    "Pocket sizes": (SIZE,),
    "Pocket stage prompts": (STAGES,),
    "DreamTuner": (("DreamTuner", "Without the reference", "With the reference"),),
    "Reference Only": (("Reference Only", "Without the picture", "Variation"),),
    "Reference Guidance": (("Reference Guidance", "With the reference", "Guided by the reference"),),
    "Train a LoRA": (("Train a LoRA", "Without the LoRA", "With the LoRA"),),
    "Train and conduct": (("Train and conduct", "Without training", "Both, as learned"),),
    "Train a word": (("Train a word", "Without the word", "With the word"),),
    "Subject masks": (REFERENCE,),
    "Find concepts": (("Find concepts", "The picture", "Each thing in a colour"),),
    "Edit a subject": (("Edit a subject", "Before", "After"),),
    "Replace a subject": (("Replace a subject", "Before", "After"),),
    "Inpaint with any model": (("Inpaint with any model", "Before", "After"),),
    "Panels": (("Panels", "Prompt alone", "In the panel, best first"),),
    "Two subjects": (REFERENCE,),
    "Two subjects in regions": (REFERENCE,),
    "Concept Conductor": (CONCEPTS,),
    "DreamBooth concepts": (CONCEPTS,),
    "MIP-Adapter": (PICTURES,),
    "ED-LoRA": (ED_LORA,),
    "Learned words": (NETI,),
    "AlignIT": (ALIGNED,),
    "ED-LoRA to LoRA": (LORA, ED_LORA),
    "ResAdapter": (SIZE,),
    "ResAdapter to LoRA": (SIZE,),
    "Golden Noise": (GOLDEN,),
    "Golden Noise with KSampler": (GOLDEN,),
    "Golden Noise training": (GOLDEN,),
    "Re-denoise": (REDENOISED,),
    "Three techniques": (REFERENCE, SIZE),
    "Five techniques": (REFERENCE, CONCEPTS, PICTURES, SIZE),
}
# what draws several pictures at once: {template: title of the node}
ALONE = {"Train a scene": "Both in a new scene", "Pocket Model": "Result"}
# what the pocket model cannot draw: their thumbnails are drawings of the idea
ELSEWHERE = ("Faces", "FaceID", "InstantID", "Two people", "StoryMaker")


def drawn(server, template):
    """{title of a node: its pictures} of what a template draws."""
    graph = json.loads((WORKFLOWS / "api" / f"{template}.json").read_text(encoding="utf-8"))
    found = {}
    for node, picture in pictures(server.run(graph)):
        opened = Image.open(io.BytesIO(server.view(picture))).convert("RGB")
        found.setdefault(graph[node]["_meta"]["title"], []).append(opened)
    return found


def thumbnail(title, rows, captions=()):
    """A square of rows of pictures under a title, with a caption over each column."""
    page = Image.new("RGB", (SIDE, SIDE), PAPER)
    draw = ImageDraw.Draw(page)
    top = TITLE + CAPTION * bool(captions)
    cell = min((SIDE - MARGIN) // len(rows[0]), (SIDE - top) // len(rows))
    left = (SIDE - cell * len(rows[0])) // 2
    middle = top + (SIDE - top - cell * len(rows)) // 2
    draw.text((SIDE // 2, TITLE // 2 + 4), title, INK, fitting(draw, title), anchor="mm")
    for k, caption in enumerate(captions):
        draw.text((left + cell * k + cell // 2, middle - CAPTION // 2), caption, GREY, font(20), anchor="mm")
    for i, row in enumerate(rows):
        for k, picture in enumerate(row):
            inner = cell - MARGIN // 2
            page.paste(picture.resize((inner, inner), Image.LANCZOS), (left + cell * k + 4, middle + cell * i))
    return page


def font(size):
    return ImageFont.load_default(size)


def fitting(draw, title):
    """The largest font in which the title fits into the width."""
    return next(font(size) for size in range(38, 10, -1) if draw.textlength(title, font(size)) <= SIDE - 2 * MARGIN)


def rows_of(template, found):
    """(rows of pictures, captions) of a template; found: what `drawn` gives for each template that is run."""
    if template in ALONE:
        shown = found[template][ALONE[template]]
        columns = 2 if len(shown) == 4 else 3
        return [shown[i : i + columns] for i in range(0, len(shown), columns)], ()
    pairs = [[found[run][without][0], found[run][with_it][0]] for run, without, with_it in SHOWN[template]]
    if len(pairs) < 3:
        return pairs, ("without", "with")
    # two pairs beside each other
    return [sum(pairs[i : i + 2], []) for i in range(0, len(pairs), 2)], ("without", "with") * 2


def main(templates):
    templates = templates or [*SHOWN, *ALONE]
    runs = {run for template in templates for run, *_ in SHOWN.get(template, ((template,),))}
    with tempfile.TemporaryDirectory(prefix="thumbnails-") as base:
        packs = {"comfyui-personalization": ROOT}
        with Server(os.environ["COMFYUI_PATH"], sys.executable, Path(base), packs=packs) as server:
            found = {run: drawn(server, run) for run in sorted(runs)}
    for template in templates:
        rows, captions = rows_of(template, found)
        thumbnail(template, rows, captions).save(WORKFLOWS / f"{template}.jpg", quality=88)
        help_pictures.copy(template)
        print(template)


if __name__ == "__main__":
    main(sys.argv[1:])
