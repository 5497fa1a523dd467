"""The demo's graph on a real server, in one step."""

import os
import sys
from pathlib import Path

import demo
import pytest
import torch
from setup.host_server import Server, pictures
from support import canvas


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    base = tmp_path_factory.mktemp("demo")
    packs = {"comfyui-personalization": Path(__file__).parents[2]}
    host, cpu = os.environ["COMFYUI_PATH"], not torch.cuda.is_available()
    with Server(host, sys.executable, base, cpu=cpu, packs=packs) as server:
        yield server


def test_every_row_is_drawn(server):
    graph = demo.graph()
    values = {"KSampler": {"steps": 1}, "BasicScheduler": {"steps": 1}}
    drawn = {node for node, _ in pictures(server.run(canvas.with_values(graph.nodes, values)))}
    assert drawn == {number for _, cells in graph.rows for _, number in cells}
