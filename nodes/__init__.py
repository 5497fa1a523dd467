"""Table of contents: every node of the pack, and the extension that hands them to ComfyUI."""

from comfy_api.latest import ComfyExtension

from . import (
    concept_conductor,
    concept_masks,
    concepts,
    edlora,
    image_adapters,
    masks,
    mip_adapter,
    mrsa,
    npnet,
    npnet_training,
    pocket_model,
    references,
    resadapter,
    samples,
)

NODES = [
    *references.NODES,
    *masks.NODES,
    *samples.NODES,
    *pocket_model.NODES,
    *mrsa.NODES,
    *resadapter.NODES,
    *image_adapters.NODES,
    *mip_adapter.NODES,
    *npnet.NODES,
    *npnet_training.NODES,
    *edlora.NODES,
    *concepts.NODES,
    *concept_conductor.NODES,
    *concept_masks.NODES,
]


class PersonalizationPack(ComfyExtension):
    async def get_node_list(self):
        return NODES
