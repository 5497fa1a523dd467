"""Loads the pack as ComfyUI does, under the name `pack`, with the real host first on the path."""

import os
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch

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

# The only tests that do without the host.
WITHOUT_HOST = ("kernels", "setup", "support", "test_architecture.py", "test_demo.py", "conftest.py")


def pytest_ignore_collect(collection_path, config):
    """Tests of the upper floors import the host: without it they are not even read, and named at the end."""
    parts = collection_path.relative_to(ROOT / "tests").parts if collection_path != ROOT / "tests" else ()
    if not HOST and parts and parts[0] not in WITHOUT_HOST:
        return True
    return None


def pytest_terminal_summary(terminalreporter):
    if not HOST:
        left = sorted(path.name for path in (ROOT / "tests").iterdir() if path.name not in WITHOUT_HOST)
        terminalreporter.line(f"NOT RUN without COMFYUI_PATH: {', '.join(left)}", yellow=True)


@pytest.fixture(autouse=True)
def _no_gradients():
    # nodes run so on a server
    with torch.inference_mode():
        yield
