"""The pack as it is placed on other machines: as the registry's zip, in a folder of another name, under odd paths."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pack.nodes import NODES

ROOT = Path(__file__).parents[1]
# ComfyUI's own loader, in a process of its own, as its server starts it
LOAD = """
import asyncio, json, sys
sys.path.insert(0, sys.argv[1])
from comfy.cli_args import args
args.cpu = True
import nodes
before, modules = set(nodes.NODE_CLASS_MAPPINGS), set(sys.modules)
assert asyncio.run(nodes.load_custom_node(sys.argv[2])), "the loader says no"
heavy = {name.split(".")[0] for name in set(sys.modules) - modules} & set(sys.argv[3:])
assert not heavy, f"imported before their use: {heavy}"
import comfy.sd, folder_paths
found = sorted(set(nodes.NODE_CLASS_MAPPINGS) - before)
pocket = nodes.NODE_CLASS_MAPPINGS["PersonalizationPocketModel"].execute().result
sample = nodes.NODE_CLASS_MAPPINGS["PersonalizationSample"].execute(picture="cat").result
web = list(nodes.EXTENSION_WEB_DIRS.values())
print(json.dumps([found, len(pocket), list(sample[0].shape), web]))
"""
# packages that some nodes need, and nobody before that
HEAVY = ("insightface", "onnxruntime", "onnx", "cv2", "skimage", "facenet_pytorch", "diffusers")


def shipped(folder):
    """Copies what the registry's zip holds: all tracked files but those that .comfyignore names."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    ignored = tuple((ROOT / ".comfyignore").read_text(encoding="utf-8").split())
    for name in filter(None, listed.split("\0")):
        if not name.startswith(ignored) and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


@pytest.mark.parametrize("name", ["ComfyUI-Personalization", "my pack (2) v0.1"])
def test_every_node_loads(tmp_path, name):
    import folder_paths

    folder = tmp_path / "with spaces" / "custom nodes" / name
    shipped(folder)
    assert not (folder / "tests").exists() and (folder / "LICENSE").is_file()
    command = [sys.executable, "-c", LOAD, folder_paths.base_path, str(folder), *HEAVY]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert made.returncode == 0, made.stderr[-3000:]
    found, parts, size, web = json.loads(made.stdout.splitlines()[-1])
    assert found == sorted(node.GET_SCHEMA().node_id for node in NODES)
    assert parts == 3 and size[-1] == 3
    assert any(Path(path).samefile(folder / "nodes" / "web") for path in web)
