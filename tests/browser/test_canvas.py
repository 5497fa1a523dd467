"""Every workflow that the pack ships, opened and run in ComfyUI's own front end, in a real browser.

Needs, beside COMFYUI_PATH, a Chromium and playwright-core (which brings no browser along):

    apt-get install chromium
    npm install --prefix ~/.cache/comfyui-personalization playwright-core
    python tests/run.py test -- tests/browser -rs

A Chromium elsewhere is named by CHROMIUM, a folder with playwright-core by NODE_PATH. Where one of them is missing
these tests are skipped. They leave a screenshot of each workflow in output/: look at it.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from setup.environment import cache_folder
from setup.host_server import Server
from support import canvas
from support import server_models as tiny_files

ROOT = Path(__file__).parents[2]
CANVASES = sorted((ROOT / "workflows").glob("*.json"))
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
GLOBAL_MODULES = ("/usr/local/lib/node_modules", "/usr/lib/node_modules", "/usr/share/nodejs")
# Model files that other ones stand in for, and where they lie.
FOLDERS = {"ckpt_name": "checkpoints", "clip_name": "clip_vision"}
QUIET = {"missing": [], "marked": [], "overlay": None}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser():
    """The environment for canvas.mjs."""
    node = shutil.which("node")
    if not node:
        pytest.skip("no browser tests: Node.js is missing (apt-get install nodejs npm)")
    chromium = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if not chromium:
        pytest.skip("no browser tests: Chromium is missing (apt-get install chromium, or name one in CHROMIUM)")
    folders = [os.environ.get("NODE_PATH"), str(cache_folder() / "node_modules"), *GLOBAL_MODULES]
    found = dict(os.environ, CHROMIUM=chromium, NODE_PATH=os.pathsep.join(filter(None, folders)))
    look = [node, "-e", "require.resolve('playwright-core')"]
    if subprocess.run(look, env=found, cwd=ROOT, capture_output=True).returncode:
        install = f"npm install --prefix {cache_folder()} playwright-core"
        pytest.skip(f"no browser tests: playwright-core is missing ({install}, or name its folder in NODE_PATH)")
    return found


@pytest.fixture(scope="module")
def server(browser, tmp_path_factory):
    host = os.environ.get("COMFYUI_PATH")
    if not host:
        pytest.skip("no ComfyUI: COMFYUI_PATH is not set")
    base = tmp_path_factory.mktemp("browser")
    tiny_files.write(base / "models")
    # The files that the workflows name need not be read: it is enough that the loaders' lists have them.
    for path in CANVASES:
        for _, socket, name in names_in(path):
            (base / "models" / FOLDERS[socket] / name).touch()
    packs = {"comfyui-personalization": ROOT}
    with Server(host, sys.executable, base, cpu=not torch.cuda.is_available(), packs=packs) as server:
        yield server


def names_in(path):
    """(type of node, socket, name) of the model files in a workflow that others stand in for."""
    nodes = api_twin(path).values()
    return [(n["class_type"], s, n["inputs"][s]) for n in nodes for s in FOLDERS if s in n["inputs"]]


def api_twin(path):
    return json.loads((path.parent / "api" / path.name).read_text(encoding="utf-8"))


def opened_and_run(path, server, environment):
    """What canvas.mjs saw of a workflow, run in small with the tiny files."""
    small = canvas.small(side=128, steps=2)
    for kind, socket, name in names_in(path):
        small[kind] = {socket: tiny_files.stand_in(socket, name)}
    screenshot = ROOT / "output" / f"canvas_{path.stem}.png"
    screenshot.parent.mkdir(exist_ok=True)
    command = ["node", Path(__file__).with_name("canvas.mjs"), server.url, path, screenshot, json.dumps(small)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=400)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("path", CANVASES, ids=lambda path: path.stem)
def test_a_user_opens_and_runs_it(path, server, browser):
    seen = opened_and_run(path, server, browser)
    twin = canvas.without_titles(api_twin(path))
    assert seen["loaded"] == QUIET
    assert canvas.without_titles(seen["prompt"]) == twin
    assert seen["ended"] == "execution_success"
    assert seen["ran"] == QUIET
    assert canvas.shows(twin) <= set(seen["images"])
