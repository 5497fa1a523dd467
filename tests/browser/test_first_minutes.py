"""A new user with a fresh ComfyUI and no model at all: every technique draws, from the template browser alone.

Needs what test_canvas.py needs, and leaves screenshots and first_minutes.json (seconds) in output/: look at them.
"""

import json
import subprocess
from pathlib import Path

import pytest
from support import canvas
from support.thorough import chosen, few_of

ROOT = Path(__file__).parents[2]
PACK = "comfyui-personalization"
TOUR = "A tour to start with"


def needs_files(path):
    return "PersonalizationPocketModel" not in path.read_text(encoding="utf-8")


def trains(path):
    return '"PersonalizationTrain"' in path.read_text(encoding="utf-8")


# The tour first, then the others that need no file. Trainings take minutes of their own.
TEMPLATES = sorted(
    (path.stem for path in (ROOT / "workflows").glob("*.json") if not needs_files(path) and not trains(path)),
    key=lambda name: (name != TOUR, name),
)
# For all of them, two minutes where nothing else runs; on a busy machine so much for each, and for the first start.
SECONDS = 75
QUIET = {"missing": [], "marked": [], "overlay": None}


@pytest.fixture(scope="module")
def seen(bare_server, browser, request):
    screenshots = ROOT / "output" / "first_minutes"
    screenshots.parent.mkdir(exist_ok=True)
    script = Path(__file__).with_name("first_minutes.mjs")
    command = ["node", script, bare_server.url, PACK, screenshots, json.dumps(chosen(request, "template"))]
    done = subprocess.run(command, env=browser, capture_output=True, text=True, encoding="utf-8", timeout=900)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_browser_lists_all_templates(seen):
    assert sorted(seen["listed"]) == sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))


def test_there_is_one_for_each_family():
    assert TEMPLATES[0] == TOUR and len(TEMPLATES) >= 8


@pytest.mark.parametrize("template", few_of(TEMPLATES, TOUR))
def test_a_template_draws(template, seen):
    found = seen["seen"][template]
    assert found["loaded"] == QUIET and found["ended"] == "execution_success"
    shows = {node for node, kind in found["types"].items() if kind in canvas.SHOWING}
    assert shows and shows <= set(found["images"])


def test_it_takes_minutes(seen):
    took = {template: found["seconds"] for template, found in seen["seen"].items()}
    (ROOT / "output" / "first_minutes.json").write_text(json.dumps({"all": sum(took.values()), **took}, indent=1))
    assert sum(took.values()) < SECONDS * (1 + len(took)), took
