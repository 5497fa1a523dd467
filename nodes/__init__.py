"""Table of contents: every node of the pack, and the extension that hands them to ComfyUI."""

from comfy_api.latest import ComfyExtension

from . import samples_node
from .concept_conductor import concept_conductor_node, concept_masks_node, concepts_node
from .golden_noise import golden_noise_node, npnet_node, npnet_training_node, redenoise_node
from .image_adapters import image_adapter_node
from .image_prompts import mip_adapter_node
from .masks import box_mask_node, layout_mask_node
from .pocket import pocket_node
from .reference_attention import mrsa_node
from .references import references_node
from .resadapter import resadapter_node
from .text_contexts import edlora_node

NODES = [
    *references_node.NODES,
    *box_mask_node.NODES,
    *samples_node.NODES,
    *pocket_node.NODES,
    *mrsa_node.NODES,
    *resadapter_node.NODES,
    *image_adapter_node.NODES,
    *mip_adapter_node.NODES,
    *npnet_node.NODES,
    *golden_noise_node.NODES,
    *redenoise_node.NODES,
    *npnet_training_node.NODES,
    *edlora_node.NODES,
    *concepts_node.NODES,
    *concept_conductor_node.NODES,
    *layout_mask_node.NODES,
    *concept_masks_node.NODES,
]


class PersonalizationPack(ComfyExtension):
    async def get_node_list(self):
        return NODES
