"""Every workflow that the pack ships, opened and run in ComfyUI's own front end, in a real browser.

Needs, beside COMFYUI_PATH, Node.js, a Chromium and playwright-core (which brings no browser along); as root on Debian

    python tests/run.py test --browser -- tests/browser

installs the last two. A Chromium elsewhere is named by CHROMIUM, a folder with playwright-core by NODE_PATH. Where one
is missing these tests are skipped. They leave a screenshot of each workflow in output/: look at it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from setup.host_server import Server
from support import canvas
from support import server_models as tiny_files
from support.small_runs import api_twin
from support.thorough import chosen, few_of

ROOT = Path(__file__).parents[2]
CANVASES = sorted((ROOT / "workflows").glob("*.json"))
# Model files that other ones stand in for, and where they lie.
FOLDERS = {
    "ckpt_name": "checkpoints",
    "clip_name": "clip_vision",
    "control_net_name": "controlnet",
    "sam_file": "sams",
}
QUIET = {"missing": [], "marked": [], "overlay": None}
# On every run; the others where all tests are wanted.
QUICK = [ROOT / "workflows" / f"{name}.json" for name in ("A tour to start with", "ED-LoRA", "Pocket stage prompts")]


@pytest.fixture(scope="module")
def server(browser, tmp_path_factory):
    base = tmp_path_factory.mktemp("browser")
    tiny_files.write(base / "models")
    # The files that the workflows name need not be read: it is enough that the loaders' lists have them.
    for path in CANVASES:
        for _, socket, name in names_in(path):
            (base / "models" / FOLDERS[socket] / name).touch()
    packs = {"comfyui-personalization": ROOT}
    host, cpu = os.environ["COMFYUI_PATH"], not torch.cuda.is_available()
    with Server(host, sys.executable, base, cpu=cpu, packs=packs) as server:
        yield server


def names_in(path):
    """(type of node, socket, name) of the model files in a workflow that others stand in for."""
    nodes = api_twin(path).values()
    return [(n["class_type"], s, n["inputs"][s]) for n in nodes for s in FOLDERS if s in n["inputs"]]


def small(path):
    """Values with which a workflow is quick, and reads the tiny files."""
    # where things must be found in what was drawn, it is drawn with the template's steps
    finds = any(node["class_type"] == "PersonalizationFindConcepts" for node in api_twin(path).values())
    values = canvas.small(side=128, steps=16 if finds else 2)
    for kind, socket, name in names_in(path):
        values[kind] = {socket: tiny_files.stand_in(socket, name)}
    return values


@pytest.fixture(scope="module")
def seen(server, browser, request):
    """{template: what canvas.mjs saw of it}, all that this run asks for on one page, as a user works."""
    screenshots = ROOT / "output" / "canvas"
    screenshots.parent.mkdir(exist_ok=True)
    workflows = json.dumps({str(path): small(path) for path in chosen(request, "path")})
    command = ["node", Path(__file__).with_name("canvas.mjs"), server.url, screenshots, workflows]
    done = subprocess.run(command, env=browser, capture_output=True, text=True, encoding="utf-8", timeout=2400)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("path", few_of(CANVASES, *QUICK), ids=lambda path: path.stem)
def test_a_user_opens_and_runs_it(path, seen):
    found = seen[path.stem]
    assert "error" not in found, found["error"]
    twin = canvas.without_titles(api_twin(path))
    assert found["loaded"] == QUIET
    assert canvas.without_titles(found["prompt"]) == twin
    assert found["ended"] == "execution_success"
    assert found["ran"] == QUIET
    assert canvas.shows(twin) <= set(found["images"])
