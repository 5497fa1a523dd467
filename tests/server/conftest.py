"""One real ComfyUI server for all tests of this folder, with the pack and tiny models of random weights."""

import os
import sys
from pathlib import Path

import pytest
import torch
from setup.host_server import Server
from support import server_models as tiny_files

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    base = tmp_path_factory.mktemp("server")
    tiny_files.write(base / "models")
    packs = {"comfyui-personalization": ROOT}
    host, cpu = os.environ["COMFYUI_PATH"], not torch.cuda.is_available()
    with Server(host, sys.executable, base, cpu=cpu, packs=packs) as server:
        yield server


@pytest.fixture(scope="session")
def object_info(server):
    return server.object_info()
