"""The pack on a real server: its nodes and their words, and every workflow it ships, as users load them."""

import io
import json
from pathlib import Path
from urllib.error import HTTPError

import numpy as np
import pytest
from PIL import Image
from setup.host_server import pictures
from support import canvas
from support import server_models as tiny_files

ROOT = Path(__file__).parents[2]
CANVASES = sorted((ROOT / "workflows").glob("*.json"))
each_workflow = pytest.mark.parametrize("path", CANVASES, ids=lambda path: path.stem)


def our_nodes():
    from pack.nodes import NODES

    return [node.define_schema().node_id for node in NODES]


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def api_twin(path):
    return read(path.parent / "api" / path.name)


def tiny(graph, seed=1):
    """A graph that asks for nothing this server lacks, and for little."""
    values = canvas.small(side=64, steps=2)
    values[canvas.ALL] = {"seed": seed, "noise_seed": seed}
    return {node: with_tiny_files(said) for node, said in canvas.with_values(graph, values).items()}


def with_tiny_files(node):
    inputs = {name: tiny_files.stand_in(name, value) for name, value in node["inputs"].items()}
    return dict(node, inputs=inputs)


def painted(server, graph):
    """The pictures of a graph as arrays, without what else the files say; and nodes that were not run anew."""
    entry = server.run(graph)
    kept = [node for kind, said in entry["status"]["messages"] if kind == "execution_cached" for node in said["nodes"]]
    return [np.asarray(Image.open(io.BytesIO(server.view(image)))) for _, image in pictures(entry)], set(kept)


def equal(some, others):
    return len(some) == len(others) and all(np.array_equal(one, two) for one, two in zip(some, others))


def seeded(graph):
    return {node for node, said in graph.items() if {"seed", "noise_seed"} & said["inputs"].keys()}


def test_every_node_is_loaded_and_explained(object_info):
    for node in our_nodes():
        assert node in object_info
        assert object_info[node]["description"], node
        for name, (_, options) in canvas.sockets(object_info[node]).items():
            assert options.get("tooltip"), f"{node}.{name} has no tooltip"


def test_every_node_has_its_help_page(server):
    assert [node for node in our_nodes() if not help_page(server, node).strip()] == []


def test_the_template_browser_lists_the_workflows(server):
    listed = json.loads(server.get("/workflow_templates"))
    assert sorted(listed.get("comfyui-personalization", [])) == [path.stem for path in CANVASES]


def help_page(server, node):
    try:
        return server.get(f"/extensions/comfyui-personalization/docs/{node}.md")
    except HTTPError:
        return b""


@each_workflow
def test_canvas_is_in_order(path, object_info):
    assert canvas.problems(read(path), object_info) == []


@each_workflow
def test_canvas_and_api_file_are_one_graph(path, object_info):
    assert canvas.without_titles(canvas.to_api(read(path), object_info)) == canvas.without_titles(api_twin(path))


@each_workflow
def test_workflow_runs_and_obeys_its_seed(path, server, object_info):
    """The second picture finds the models loaded and what our nodes keep; the same seed gives the same all the same."""
    graph = api_twin(path)
    first, _ = painted(server, tiny(canvas.to_api(read(path), object_info), seed=1))
    assert len(first) >= len(canvas.shows(graph))
    assert all(picture.std() > 1 for picture in first), "a picture of one colour"
    assert equal(painted(server, tiny(graph, seed=1))[0], first)
    if first:
        assert not equal(painted(server, tiny(graph, seed=2))[0], first)
        again, kept = painted(server, tiny(graph, seed=1))
        assert equal(again, first)
        assert not kept & seeded(graph), "the server answers with what it made before"
