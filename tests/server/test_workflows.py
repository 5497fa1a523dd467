"""The pack on a real server: its nodes and their words, and every workflow it ships, as users load them."""

import json
import sys
import time
from pathlib import Path
from urllib.error import HTTPError

import pytest
from PIL import Image
from support import canvas
from support import server_models as tiny_files
from support.small_runs import api_twin, equal, painted, read, tiny
from support.thorough import few_of

ROOT = Path(__file__).parents[2]
CANVASES = sorted((ROOT / "workflows").glob("*.json"))
each_workflow = pytest.mark.parametrize("path", CANVASES, ids=lambda path: path.stem)


def covering(paths):
    """Few workflows in which each of our nodes stands at least once, those with most of the nodes first."""
    kinds = {path: {node["class_type"] for node in api_twin(path).values()} for path in paths}
    left = {kind for found in kinds.values() for kind in found if kind.startswith("Personalization")}
    chosen = []
    while left:
        chosen.append(max(paths, key=lambda path: len(kinds[path] & left)))
        left -= kinds[chosen[-1]]
    return chosen


def our_nodes():
    from pack.nodes import NODES

    return [node.define_schema().node_id for node in NODES]


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
    assert sorted(listed.get("comfyui-personalization", [])) == sorted(path.stem for path in CANVASES)


def help_page(server, node):
    try:
        return server.get(f"/extensions/comfyui-personalization/docs/{node}.md")
    except HTTPError:
        return b""


def places_named(server, since):
    """Files that runs wrote since a time and that say where something lies on this machine: people share them."""
    places = {str(place) for place in (server.base, server.host, ROOT, Path.home(), Path(sys.prefix))}
    # as they are, and as JSON writes them on Windows
    needles = [text.encode() for place in places for text in (place, json.dumps(place)[1:-1])]
    found, written = (
        [],
        [path for path in server.base.rglob("*") if path.is_file() and is_of_a_run(path, server, since)],
    )
    for path in written:
        data = path.read_bytes()
        if path.suffix == ".png":
            # what is packed in it, too
            data += json.dumps(Image.open(path).info, default=str).encode()
        found += [(path.name, needle) for needle in needles if needle in data]
    assert written, "the run wrote nothing"
    return found


def is_of_a_run(path, server, since):
    """Not the server's own log and settings."""
    own = path.suffix == ".log" or path.relative_to(server.base).parts[0] in ("user", "custom_nodes")
    inversions = "personalization" in path.parts
    return path.stat().st_mtime >= since and (not own or inversions)


@each_workflow
def test_canvas_is_in_order(path, object_info):
    assert canvas.problems(read(path), object_info) == []


@each_workflow
def test_canvas_and_api_file_are_one_graph(path, object_info):
    assert canvas.without_titles(canvas.to_api(read(path), object_info)) == canvas.without_titles(api_twin(path))


@pytest.mark.parametrize("path", few_of(CANVASES, *covering(CANVASES)), ids=lambda path: path.stem)
def test_workflow_runs_and_obeys_its_seed(path, server, object_info):
    """The second picture finds the models loaded and what our nodes keep; the same seed gives the same all the same."""
    graph, start = api_twin(path), time.time() - 1
    if tiny_files.needs_faces(graph) and not tiny_files.reads_faces():
        pytest.skip("insightface is not installed here")
    first, _ = painted(server, tiny(canvas.to_api(read(path), object_info), seed=1))
    assert len(first) >= len(canvas.shows(graph))
    assert all(picture.std() > 1 for picture in first), "a picture of one colour"
    assert equal(painted(server, tiny(graph, seed=1))[0], first)
    if first:
        assert not equal(painted(server, tiny(graph, seed=2))[0], first)
        again, kept = painted(server, tiny(graph, seed=1))
        assert equal(again, first)
        assert not kept & seeded(graph), "the server answers with what it made before"
    assert places_named(server, start) == []
