"""The help page of a node in the front end's own panel: its title, its tables, and the picture of its template.

Needs what test_canvas.py needs, and leaves screenshots in output/: look at them.
"""

import json
import subprocess
from pathlib import Path

import pytest
from support.help_pictures import SHOWN, file_of
from support.thorough import chosen, few_of

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "nodes" / "web" / "docs"


@pytest.fixture(scope="module")
def seen(bare_server, browser, request):
    """{type of node: what its panel shows}"""
    screenshots = ROOT / "output" / "help"
    screenshots.parent.mkdir(exist_ok=True)
    types = [f"Personalization{name}" for name in chosen(request, "name")]
    command = ["node", Path(__file__).with_name("help.mjs"), bare_server.url, screenshots, *types]
    done = subprocess.run(command, env=browser, capture_output=True, text=True, encoding="utf-8", timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", few_of(SHOWN, "MRSA"))
def test_the_panel_shows_page_and_picture(name, seen):
    page = (DOCS / f"Personalization{name}.md").read_text(encoding="utf-8")
    found = seen[f"Personalization{name}"]
    assert page.splitlines()[0].removeprefix("# ") in found["titles"]
    assert found["tables"] == sum(line.startswith("| ---") for line in page.splitlines())
    ((file, width),) = found["pictures"]
    assert file == file_of(SHOWN[name]) and width == 512
