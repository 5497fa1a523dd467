"""Table of contents: every node of the pack, and the extension that hands them to ComfyUI."""

from comfy_api.latest import ComfyExtension

from . import samples_node
from .concept_conductor import concept_conductor_node, concept_masks_node, concepts_node
from .editing import pilot_node, subject_crop_node, visctrl_node
from .faces import faces_node
from .golden_noise import golden_noise_node, npnet_node, npnet_training_node, redenoise_node
from .image_adapters import image_adapter_node
from .image_prompts import faceid_node, instantid_node, mip_adapter_node, storymaker_node
from .masks import box_mask_node, find_concepts_node, layout_mask_node
from .panels import clip_rank_node, panel_node
from .pocket import pocket_node
from .reference_attention import dreamtuner_node, mrsa_node, reference_guidance_node, reference_only_node
from .references import references_node
from .resadapter import resadapter_node
from .subject_masks import sam_node, subject_mask_node
from .text_contexts import (
    alignit_node,
    concept_node,
    edlora_node,
    perfusion_node,
    stage_prompts_node,
    varying_words_node,
)
from .training import refine_word_node, train_node, train_options_node, training_pictures_node
from .weight_deltas import weight_deltas_node

NODES = [
    *references_node.NODES,
    *box_mask_node.NODES,
    *samples_node.NODES,
    *pocket_node.NODES,
    *mrsa_node.NODES,
    *dreamtuner_node.NODES,
    *reference_only_node.NODES,
    *reference_guidance_node.NODES,
    *resadapter_node.NODES,
    *faces_node.NODES,
    *image_adapter_node.NODES,
    *mip_adapter_node.NODES,
    *faceid_node.NODES,
    *instantid_node.NODES,
    *storymaker_node.NODES,
    *npnet_node.NODES,
    *golden_noise_node.NODES,
    *redenoise_node.NODES,
    *npnet_training_node.NODES,
    *edlora_node.NODES,
    *concept_node.NODES,
    *stage_prompts_node.NODES,
    *varying_words_node.NODES,
    *perfusion_node.NODES,
    *alignit_node.NODES,
    *weight_deltas_node.NODES,
    *training_pictures_node.NODES,
    *train_node.NODES,
    *train_options_node.NODES,
    *refine_word_node.NODES,
    *concepts_node.NODES,
    *concept_conductor_node.NODES,
    *layout_mask_node.NODES,
    *find_concepts_node.NODES,
    *concept_masks_node.NODES,
    *sam_node.NODES,
    *subject_mask_node.NODES,
    *subject_crop_node.NODES,
    *visctrl_node.NODES,
    *pilot_node.NODES,
    *panel_node.NODES,
    *clip_rank_node.NODES,
]


class PersonalizationPack(ComfyExtension):
    async def get_node_list(self):
        return NODES
