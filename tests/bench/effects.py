"""What all effect benchmarks share: pictures of several arms under the same seeds, judged, and compared in pairs.

An arm is one way to answer a question, such as "with references". A question is what the picture shall show. All arms
draw it with the same seed, so that two arms can be compared picture by picture.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from answered import Answered, setting_of

# pictures of each arm on the sheet
COLUMNS = 12
# the guidance at which the pocket model's pictures are right most often while the looks of a prompt still spread
CFG = 3.0
POCKET = Path(__file__).parents[1] / "pocket"
WEIGHTS = Path(__file__).parents[2] / "nodes" / "pocket"
COMPANIONS = WEIGHTS / "companions"


class UnaskedError(Exception):
    """Why a question cannot be asked."""


def parser(description):
    """A parser with the options that every effect benchmark takes."""
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--comfyui", metavar="PATH", default=os.environ.get("COMFYUI_PATH"), help="ComfyUI's folder")
    found.add_argument("--cache", type=Path, default=Path("output/pocket"), help="folder with the things' pictures")
    found.add_argument(
        "--companions", type=Path, default=COMPANIONS, help="folder of what was trained for the pocket model"
    )
    found.add_argument("--folder", type=Path, help="where the model's weights are (default: the pack's)")
    found.add_argument("--judge", type=Path, default=POCKET / "judge.safetensors", help="the judge's weights")
    found.add_argument("--cfg", type=float, default=CFG, help="guidance of all pictures")
    found.add_argument("--count", type=int, default=200, help="questions of each kind")
    found.add_argument("--steps", type=int, default=12, help="sampling steps; more change these pictures little")
    found.add_argument(
        "--only", metavar="WORDS", default="", help="ask only the kinds of question that have these words"
    )
    found.add_argument("--minutes", type=float, help="ask no further question of a kind after so many")
    found.add_argument("--threads", type=int, help="CPU threads")
    found.add_argument("--sheets", type=Path, help="also write the first pictures to this folder, a row for each arm")
    found.add_argument("--table", type=Path, help="also write the tables, at the end of this file")
    found.add_argument("--answers", type=Path, help="go on where runs that kept their answers in this file stopped")
    return found


def parsed(parser, *reads):
    """The options, with the pack and the real host loaded as the tests load them; reads: patterns of the companions
    that are used."""
    options = parser.parse_args()
    if not options.comfyui:
        parser.error("name ComfyUI's folder with --comfyui")
    os.environ["COMFYUI_PATH"] = options.comfyui
    sys.path.insert(0, str(Path(__file__).parent.parent))
    import conftest  # noqa: F401
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    used = [path for pattern in reads for path in options.companions.glob(pattern)]
    options.weights = [options.judge, *(options.folder or WEIGHTS).glob("*.safetensors"), *used]
    return options


def pocket(options):
    """(MODEL, CLIP, VAE) of the pocket model that is asked for."""
    from pack.nodes.pocket import pocket_model

    return pocket_model.load_pocket(options.folder) if options.folder else pocket_model.load_pocket()


def shown(word, hue, world, seed):
    """(picture (1, h, w, 3) of a thing in a hue on grey, its mask (1, h, w)); world: of tints.tinted_world()."""
    from things import WORDS
    from world import portrait

    things, own = world
    turn = hue - own[WORDS.index(word)].angle().item()
    picture, mask, _ = portrait(word, things, seed=seed, colour="gray", turn=turn)
    return picture, mask


def judge_of(options):
    """The judge that is asked for."""
    import judge

    return judge.load(options.judge)


def run(arms, questions, judge, answers, minutes=None, answered=None):
    """({arm: [{what: whether, or how much}] for each question}, {arm: [pictures drawn now]}) of arms {name: question ->
    (1, h, w, 3)}; after so many minutes no further question is asked, one that raises UnaskedError is not counted, and
    one that is `answered` is not drawn again.
    """
    from tqdm import tqdm

    answered = answered or Answered(None, "", {})
    results, pictures = {name: [] for name in arms}, {name: [] for name in arms}
    began = time.monotonic()
    for question in tqdm(questions):
        found = answered.of(question, arms)
        if found is None:
            if minutes and time.monotonic() - began > 60 * minutes:
                continue
            try:
                made = {name: draw(question) for name, draw in arms.items()}
                found = {name: answers(question, picture, judge) for name, picture in made.items()}
            except UnaskedError as why:
                print(why)
                continue
            answered.keep(question, found)
            for name in arms:
                pictures[name].append(made[name])
        for name in arms:
            results[name].append(found[name])
    return results, pictures


def table(results, plain):
    """Markdown: what each arm comes to, as a share or as a mean, and how far that lies from the arm named `plain`."""
    whats = list(results[plain][0])
    lines = ["| arm | " + " | ".join(whats) + " |", "| --- |" + " --- |" * len(whats)]
    for name, found in results.items():
        cells = []
        for what in whats:
            mine, theirs = ([one[what] for one in those] for those in (found, results[plain]))
            cells.append(_cell(mine, None if name == plain else theirs))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(mine, theirs=None):
    """One cell of a table: shares of booleans in percent, means of numbers as they are."""
    from shares import difference, mean, mean_difference, share

    numbers = isinstance(mine[0], float)
    own, beside, form = (mean, mean_difference, "{:.3f}") if numbers else (share, difference, "{:.0%}")
    middle, low, high = map(form.format, own(mine))
    cell = f"{middle} ({low} to {high})"
    if theirs is None:
        return cell
    *values, chance = beside(mine, theirs)
    middle, low, high = map(form.replace(":", ":+").format, values)
    return f"{cell}, {middle} ({low} to {high}, p {_rounded(chance)})"


def _rounded(p):
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def compare(options, kind, arms, questions, answers=None, against=None):
    """Runs all arms on the questions of one kind; prints and writes their table. The first arm is the plain one.

    `answers(question, picture, judge)` gives {what: whether, or how much}; if left out, what is asked of any picture.
    `against` = {an arm: arms whose differences from it are told in a table of their own}.
    """
    import questions as asking
    import torch
    from samples import sheet

    if options.only not in kind:
        return

    answered = Answered(options.answers, kind, setting_of(options, options.weights))
    said = answers or asking.answers
    results, pictures = run(arms, questions, judge_of(options), said, options.minutes, answered)
    asked = len(next(iter(results.values())))
    text = f"### {kind}, {asked} pictures\n\n{table(results, next(iter(arms)))}\n"
    for plain, others in (against or {}).items():
        text += f"\n{table({name: results[name] for name in (plain, *others)}, plain)}\n"
    print(text)
    if options.table:
        options.table.parent.mkdir(parents=True, exist_ok=True)
        with options.table.open("a", encoding="utf-8") as file:
            file.write(text + "\n")
    drawn = len(next(iter(pictures.values())))
    if options.sheets and drawn:
        options.sheets.mkdir(parents=True, exist_ok=True)
        columns = min(COLUMNS, drawn)
        shown = torch.cat([picture for found in pictures.values() for picture in found[:columns]])
        sheet(shown, columns).save(options.sheets / f"{kind}.png")
