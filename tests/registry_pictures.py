"""Draws the icon and the banner that the registry shows: python tests/registry_pictures.py

Both are shapes of our own, in the sizes that the registry asks for: a square of at most 400 pixels, and 21:9.
"""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

FOLDER = Path(__file__).parents[1] / "workflows" / "images"
ICON, BANNER = (400, 400), (1260, 540)
# Drawn so many times larger and made smaller, for smooth edges.
SMOOTH = 4
PAPER, FRAME, INK, GREY = "#1d2130", "#f4f4f2", "#ffffff", "#aab0c4"
RED, BLUE, YELLOW = "#e8505b", "#3d7de0", "#f9c846"
TITLE, LINES = "Personalization", ("Your subjects in one picture,", "several at once, without mixing them up")


def mark(side):
    """A picture with three subjects in it, each with a shape of its own."""
    scale = side * SMOOTH / 100
    made = Image.new("RGB", (side * SMOOTH, side * SMOOTH), PAPER)
    draw = ImageDraw.Draw(made)

    def at(*points):
        return [value * scale for value in points]

    draw.rounded_rectangle(at(12, 12, 88, 88), 10 * scale, outline=FRAME, width=round(5 * scale))
    draw.ellipse(at(22, 42, 50, 70), fill=RED)
    draw.rounded_rectangle(at(52, 50, 78, 76), 4 * scale, fill=BLUE)
    draw.polygon(at(52, 22, 70, 46, 34, 46), fill=YELLOW)
    return made.resize((side, side), Image.LANCZOS)


def banner():
    """The mark with the pack's name and what it does."""
    width, height = BANNER
    made = Image.new("RGB", BANNER, PAPER)
    side = height - 140
    made.paste(mark(side), (40, 70))
    draw = ImageDraw.Draw(made)
    draw.text((side + 70, 190), TITLE, INK, ImageFont.load_default(92))
    for k, line in enumerate(LINES):
        draw.text((side + 74, 310 + 46 * k), line, GREY, ImageFont.load_default(36))
    return made


if __name__ == "__main__":
    mark(ICON[0]).save(FOLDER / "icon.png", optimize=True)
    banner().save(FOLDER / "banner.png", optimize=True)
