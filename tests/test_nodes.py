"""All nodes: ids, words, help pages, and the loader of the host on this folder."""

import asyncio
import inspect
import re
import time
from pathlib import Path

import pytest
from comfy_api.latest import io
from support import help_pages, help_pictures, nodes_table

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
def test_no_node_of_the_host_has_its_name(schema):
    from nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

    assert schema.display_name not in {*NODE_DISPLAY_NAME_MAPPINGS.values(), *NODE_CLASS_MAPPINGS}


@schemas
def test_help_page(schema):
    page = (ROOT / "nodes" / "web" / "docs" / f"{schema.node_id}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {schema.display_name}\n")
    # types, defaults and ranges are those of the schema; python tests/help_pages.py writes them
    assert help_pages.with_tables(page, schema) == page


def test_help_pages_show_the_thumbnails():
    pages = ROOT / "nodes" / "web" / "docs"
    for node, template in help_pictures.SHOWN.items():
        page = (pages / f"Personalization{node}.md").read_text(encoding="utf-8")
        assert help_pictures.with_picture(page, template) == page, node
        picture = (pages / help_pictures.file_of(template)).read_bytes()
        assert picture == (ROOT / "workflows" / f"{template}.jpg").read_bytes(), template
    beside = {path.name for path in pages.iterdir() if path.suffix != ".md"}
    assert beside == {help_pictures.file_of(template) for template in help_pictures.SHOWN.values()}


# What a page says of a node, beside its tables; "Good to know" tells faults too.
FAULTS = ("## If something is wrong", "## If it does not look right", "## Good to know", "## Troubleshooting")
# Nodes that make, load or show something by nobody's method.
OF_NO_PAPER = (
    "BoxMask", "Sample", "PocketModel", "PocketVision", "PocketLoRA", "ConceptConvert", "ConceptLoader",
    "FaceAnalysisLoader", "FaceKeypoints", "FaceReferences",
)  # fmt: skip


@schemas
def test_a_help_page_is_complete(schema):
    page = (ROOT / "nodes" / "web" / "docs" / f"{schema.node_id}.md").read_text(encoding="utf-8")
    _, what_for, rest = page.split("\n\n", 2)
    assert len(what_for) > 40 and not what_for.startswith(("#", "|", "-")) and rest
    assert "\n## What it costs\n\n" in page
    assert any(f"\n{heading}\n\n" in page for heading in FAULTS)
    # numbers of papers are links
    assert re.findall(r"(?<!\[)\barXiv:? ?\d{4}\.\d{5}", page) == []
    if schema.node_id.removeprefix("Personalization") not in OF_NO_PAPER:
        assert "](https://arxiv.org/abs/" in page


@schemas
def test_what_can_be_set_has_settings_to_start_from(schema):
    """Three of them where a node has three numbers or more that a user would turn."""
    page = (ROOT / "nodes" / "web" / "docs" / f"{schema.node_id}.md").read_text(encoding="utf-8")
    turned = [one.id for one in schema.inputs if one.get_io_type() == "FLOAT"]
    if len(turned) >= 3:
        assert "\n## Three good settings\n\n" in page


# Names in model files and of such files, of folders and their like, as the pages and tooltips say them.
IN_FILES = set(
    [
        "my_cat",
        "to_k",
        "to_v",
        "clip_g",
        "clip_h",
        "clip_l",
        "delta_epoch",
        "emb_params",
        "embeddings_gs",
        "key_value_params",
        "modifier_token",
        "string_to_param",
        "target_output",
        "text_encoders_0",
        "text_encoders_1",
        "image_encoder",
        "sdxl_models",
        "model_sdxl",
        "model_sdxl_plus",
        "buffalo_l",
        "resadapter_v1_sdxl",
        "resadapter_v2_sdxl",
        "npnet_pairs",
        "my_npnet",
        "chow_dog_sd15",
        "class_cat",
    ]
)
SNAKE = r"[a-z]+(?:_[a-z0-9]+)+"


def names_that_exist():
    schemas = [node.GET_SCHEMA() for node in NODES]
    inputs = [one for schema in schemas for one in schema.inputs]
    options = {str(option) for one in inputs for option in getattr(one, "options", None) or ()}
    outputs = {one.display_name for schema in schemas for one in schema.outputs}
    return {one.id for one in inputs} | options | outputs | IN_FILES


@schemas
def test_named_widgets_exist(schema):
    """What reads like an input in a help page or a tooltip is one of the pack's."""
    page = (ROOT / "nodes" / "web" / "docs" / f"{schema.node_id}.md").read_text(encoding="utf-8")
    words = " ".join([schema.description, *(one.tooltip for one in (*schema.inputs, *schema.outputs))])
    said = {*re.findall(rf"`({SNAKE})`", page), *re.findall(rf"(?<![/.\w`<])({SNAKE})\b(?![.\w/])", words)}
    assert said - names_that_exist() == set()


def test_widgets_named_in_the_readme_exist():
    readme = (ROOT / "README.md").read_text(encoding="utf-8").split("## Code map")[0]
    said = set(re.findall(rf"`({SNAKE})`", readme))
    assert said and said - names_that_exist() - {"bench_mrsa"} == set()


@schemas
def test_execute_takes_the_inputs(schema):
    node = next(node for node in NODES if node.GET_SCHEMA().node_id == schema.node_id)
    parameters = inspect.signature(node.execute).parameters
    # a node of nothing but settings may take them as they come
    as_they_come = [one.kind for one in parameters.values()] == [inspect.Parameter.VAR_KEYWORD]
    assert as_they_come or sorted(parameters) == sorted(i.id for i in schema.inputs)


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
