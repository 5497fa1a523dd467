"""All nodes: ids, words, help pages, and the loader of the host on this folder."""

import asyncio
import inspect
import time
from pathlib import Path

import pytest
from comfy_api.latest import io
from support import nodes_table

from pack.nodes import NODES, PersonalizationPack

ROOT = Path(__file__).parents[1]
schemas = pytest.mark.parametrize("schema", [node.GET_SCHEMA() for node in NODES], ids=lambda schema: schema.node_id)


def test_every_node_is_known():
    assert sorted(nodes_table.NODES) == sorted(node.GET_SCHEMA().node_id for node in NODES)


@schemas
def test_sockets_keep_their_order(schema):
    told = nodes_table.NODES[schema.node_id]
    inputs, outputs = told.inputs.split(), told.outputs.split()
    assert [socket.id for socket in schema.inputs][: len(inputs)] == inputs
    assert [socket.get_io_type() for socket in schema.outputs][: len(outputs)] == outputs


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.GET_SCHEMA().node_id)
def test_nodes_lie_where_the_table_says(node):
    told = nodes_table.NODES[node.GET_SCHEMA().node_id]
    assert Path(inspect.getfile(node)) == ROOT / "nodes" / told.file


@pytest.mark.parametrize("technique", nodes_table.TECHNIQUES, ids=lambda technique: technique.name)
def test_each_technique_has_its_files(technique):
    assert [pattern for pattern in technique.files() if not list(ROOT.glob(pattern))] == []


@schemas
def test_words(schema):
    assert schema.node_id.startswith("Personalization") and schema.display_name and len(schema.description) > 40
    assert schema.category == "personalization" or schema.category.startswith("personalization/")
    for socket in (*schema.inputs, *schema.outputs):
        assert socket.tooltip and socket.tooltip.endswith("."), socket


@schemas
def test_help_page(schema):
    page = (ROOT / "nodes" / "web" / "docs" / f"{schema.node_id}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {schema.display_name}\n")
    names = [i.id for i in schema.inputs] + [o.display_name for o in schema.outputs if o.display_name]
    assert [name for name in names if f"`{name}`" not in page] == []


@schemas
def test_execute_takes_the_inputs(schema):
    node = next(node for node in NODES if node.GET_SCHEMA().node_id == schema.node_id)
    parameters = list(inspect.signature(node.execute).parameters)
    assert sorted(parameters) == sorted(i.id for i in schema.inputs)


@schemas
def test_schemas_are_cheap(schema):
    node = next(node for node in NODES if node.GET_SCHEMA().node_id == schema.node_id)
    began = time.perf_counter()
    for _ in range(20):
        node.define_schema()
    # the host asks for them several times per prompt; a file scan would take longer than this by far
    assert time.perf_counter() - began < 1.0


def test_own_wires_carry_the_prefix():
    for node in NODES:
        for socket in (*node.GET_SCHEMA().inputs, *node.GET_SCHEMA().outputs):
            kind = socket.get_io_type()
            host_kinds = {getattr(io, name).io_type for name in dir(io) if hasattr(getattr(io, name), "io_type")}
            assert kind in host_kinds or kind.startswith("PERSONALIZATION_"), kind


def test_the_extension_lists_them():
    assert asyncio.run(PersonalizationPack().get_node_list()) is NODES
