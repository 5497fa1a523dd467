"""Shipped graphs on a server of the tests: with its tiny files, in small, and what they draw."""

import io
import json

import numpy as np
from PIL import Image
from setup.host_server import pictures
from support import canvas
from support import server_models as tiny_files


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def api_twin(path):
    return read(path.parent / "api" / path.name)


def tiny(graph, seed=1):
    """A graph that asks for nothing this server lacks, and for little."""
    values = canvas.small(side=64, steps=2)
    values[canvas.ALL] = {"seed": seed, "noise_seed": seed}
    return {node: _own_file(with_tiny_files(said), seed) for node, said in canvas.with_values(graph, values).items()}


def _own_file(node, seed):
    """A training with another seed writes another file."""
    name = node["inputs"].get("file_name")
    if node["class_type"] != "PersonalizationTrain" or name is None:
        return node
    return dict(node, inputs={**node["inputs"], "file_name": f"{name}_{seed}"})


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
