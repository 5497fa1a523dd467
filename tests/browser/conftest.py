"""What the tests in a real browser share."""

import os
import sys
from pathlib import Path

import pytest
import torch
from setup.browser import found
from setup.environment import cache_folder
from setup.host_server import Server
from setup.steps import SetupError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def browser():
    """The environment for a script that opens the browser."""
    try:
        return found(cache_folder())
    except SetupError as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def bare_server(browser, tmp_path_factory):
    """A fresh ComfyUI with the pack, and no model at all."""
    packs, cpu = {"comfyui-personalization": ROOT}, not torch.cuda.is_available()
    with Server(
        os.environ["COMFYUI_PATH"], sys.executable, tmp_path_factory.mktemp("bare"), cpu=cpu, packs=packs
    ) as one:
        yield one
