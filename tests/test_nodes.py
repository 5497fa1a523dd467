"""All nodes: ids, words, help pages, and the loader of the host on this folder."""

import asyncio
import inspect
import time
from pathlib import Path

import pytest
from comfy_api.latest import io

from pack.nodes import NODES, PersonalizationPack

ROOT = Path(__file__).parents[1]
# ids, inputs and their order are in saved workflows: they may only grow at the end
SOCKETS = {
    "PersonalizationReference": "image word strength prompt mask region references",
    "PersonalizationReferencePreview": "references",
    "PersonalizationSample": "picture",
    "PersonalizationPocketModel": "",
    "PersonalizationBoxMask": "x y width height pixel_width pixel_height feather",
    "PersonalizationMRSA": "model clip vae weight blocks custom_blocks style_fidelity start_percent end_percent "
    "reference_noise reference_seed cache_mb references",
    "PersonalizationResAdapter": "model adapter_set alpha norms norm_strength link_norms",
    "PersonalizationResAdapterExport": "adapter_set file_name model",
    "PersonalizationResolution": "model adapter_set aspect megapixels custom_width custom_height batch_size",
    "PersonalizationImageAdapterLoader": "adapter_file",
    "PersonalizationMIPAdapter": "model adapter clip clip_vision scale merge merge_power phrase_source text_gate "
    "start_percent end_percent prompt references",
    "PersonalizationMIPMaps": "model samples images",
    "PersonalizationNPNetLoader": "npnet_file",
    "PersonalizationGoldenNoise": "noise npnet conditioning strength size_mode long_prompt device",
    "PersonalizationGoldenNoiseModel": "model npnet conditioning strength size_mode long_prompt device",
    "PersonalizationNoisePairs": "model positive negative folder seed count width height guidance "
    "inverse_guidance steps",
    "PersonalizationTrainNPNet": "folder file_name steps batch_size learning_rate seed npnet",
    "PersonalizationEDLoRALoader": "model clip edlora_file strength_model strength_clip pooled",
    "PersonalizationEDLoRAConvert": "edlora_file file_name",
    "PersonalizationRedenoise": "noise model positive negative guidance inverse_guidance steps repeats",
    "PersonalizationConcept": "model positive word strength negative mask concepts",
    "PersonalizationConceptConductor": "model guidance_weight guidance_end guidance_interval custom_factor "
    "gradient_space refine_start refine_end refine_interval iou_threshold kmeans_restarts rect_mask use_loss_mask "
    "inversion_steps concepts layout_image layout_positive vae unmatched close_seams cache_mb",
    "PersonalizationLayoutMask": "model vae layout_image layout_positive x y clusters",
    "PersonalizationConceptMasks": "model samples images",
}

schemas = pytest.mark.parametrize("schema", [node.GET_SCHEMA() for node in NODES], ids=lambda schema: schema.node_id)


def test_every_node_is_known():
    assert sorted(SOCKETS) == sorted(node.GET_SCHEMA().node_id for node in NODES)


@schemas
def test_sockets_keep_their_order(schema):
    assert [i.id for i in schema.inputs][: len(SOCKETS[schema.node_id].split())] == SOCKETS[schema.node_id].split()


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
