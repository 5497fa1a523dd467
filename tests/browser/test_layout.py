"""Every template's canvas in both designs of nodes: nothing overlaps, no text is cut, and all flows left to right.

Needs what test_canvas.py needs, and leaves screenshots in output/: look at them.
"""

import itertools
import json
import subprocess
from pathlib import Path

import pytest
from support.thorough import chosen, few_of

ROOT = Path(__file__).parents[2]
CANVASES = sorted((ROOT / "workflows").glob("*.json"))
DESIGNS = ("classic", "modern")
# Measured on every run; the others where all tests are wanted.
QUICK = [ROOT / "workflows" / f"{name}.json" for name in ("A tour to start with", "Two people", "Train a word")]
each_template = pytest.mark.parametrize("path", few_of(CANVASES, *QUICK), ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def measured(bare_server, browser, request):
    """{template: {design: {"nodes", "groups"}}} of those that this run asks for, as layout.mjs says it."""
    screenshots = ROOT / "output" / "layout"
    screenshots.parent.mkdir(exist_ok=True)
    command = ["node", Path(__file__).with_name("layout.mjs"), bare_server.url, screenshots, *chosen(request, "path")]
    done = subprocess.run(command, env=browser, capture_output=True, text=True, encoding="utf-8", timeout=900)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def overlap(one, other):
    (x, y, w, h), (u, v, s, t) = one["box"], other["box"]
    return x < u + s and u < x + w and y < v + t and v < y + h


def within(inner, outer):
    (x, y, w, h), (u, v, s, t) = inner["box"], outer["box"]
    return u <= x and x + w <= u + s and v <= y and y + h <= v + t


@pytest.mark.parametrize("design", DESIGNS)
@each_template
def test_nothing_overlaps_and_no_text_is_cut(path, design, measured):
    seen = measured[path.stem][design]
    for kind in ("nodes", "groups"):
        pairs = itertools.combinations(seen[kind], 2)
        assert [(one["name"], other["name"]) for one, other in pairs if overlap(one, other)] == []
        assert {one["name"]: one["cut"] for one in seen[kind] if one["cut"]} == {}


@pytest.mark.parametrize("design", DESIGNS)
@each_template
def test_every_node_stands_in_a_group_with_a_name(path, design, measured):
    seen = measured[path.stem][design]
    assert seen["groups"] and all(group["name"].strip(" 0123456789") for group in seen["groups"])
    homes = {node["name"]: [group["name"] for group in seen["groups"] if within(node, group)] for node in seen["nodes"]}
    assert {name: found for name, found in homes.items() if len(found) != 1} == {}


@pytest.mark.parametrize("path", CANVASES, ids=lambda path: path.stem)
def test_flows_left_to_right(path):
    canvas = json.loads(path.read_text(encoding="utf-8"))
    left = {node["id"]: node["pos"][0] for node in canvas["nodes"]}
    titles = {node["id"]: node["title"] for node in canvas["nodes"]}
    back = [(titles[start], titles[end]) for _, start, _, end, *_ in canvas["links"] if left[start] > left[end]]
    assert back == []
