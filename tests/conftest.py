"""Loads the pack as ComfyUI does, under the name `pack`, with the real host first on the path."""

import os
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch

# What is left out without the host, and what is told at the end; which files go first.
pytest_plugins = ["setup.report", "setup.order"]

ROOT = Path(__file__).parent.parent
HOST = os.environ.get("COMFYUI_PATH")

sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "pocket")]
if HOST:
    # before the current folder: `nodes` must mean ComfyUI's nodes.py
    sys.path.insert(0, HOST)
    from comfy.cli_args import args

    args.cpu = not torch.cuda.is_available()
spec = spec_from_file_location("pack", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
sys.modules["pack"] = module_from_spec(spec)
spec.loader.exec_module(sys.modules["pack"])


@pytest.fixture(autouse=True)
def _no_gradients():
    # nodes run so on a server
    with torch.inference_mode():
        yield
