"""Puts pictures with their titles on one sheet: python contact_sheet.py OUT < rows.json

rows.json: [[title, [[caption, path of a picture], ...]], ...]
"""

import json
import sys

from PIL import Image, ImageDraw, ImageFont

CELL, GAP, TITLE, CAPTION = 256, 16, 34, 24
PAPER, INK, GREY = "white", "black", "#666"


def sheet(rows):
    """One PIL picture of rows [(title, [(caption, picture)])], each picture enlarged to CELL."""
    columns = max(len(cells) for _, cells in rows)
    height = TITLE + CELL + CAPTION + GAP
    page = Image.new("RGB", (GAP + columns * (CELL + GAP), GAP + len(rows) * height), PAPER)
    draw = ImageDraw.Draw(page)
    large, small = (ImageFont.load_default(size) for size in (20, 15))
    for i, (title, cells) in enumerate(rows):
        top = GAP + i * height
        draw.text((GAP, top), title, INK, large)
        for k, (caption, picture) in enumerate(cells):
            left = GAP + k * (CELL + GAP)
            fitted = picture.convert("RGB").resize((CELL, CELL), Image.LANCZOS)
            page.paste(fitted, (left, top + TITLE))
            draw.text((left, top + TITLE + CELL + 3), caption, GREY, small)
    return page


def main(out):
    rows = json.load(sys.stdin)
    opened = [(title, [(caption, Image.open(path)) for caption, path in cells]) for title, cells in rows]
    sheet(opened).save(out)


if __name__ == "__main__":
    main(sys.argv[1])
