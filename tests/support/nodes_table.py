"""The techniques, where their code lies, and the nodes with their sockets: what saved workflows rely on."""

from typing import NamedTuple


class Technique(NamedTuple):
    """`code` begins its files in nodes/<room>/ and tests/<room>/, `name` those in workflows/ and tests/bench/."""

    name: str
    room: str
    code: str
    # One that only changes weights and prompts costs nothing to sample with: there is nothing to measure.
    costs: bool = True

    def files(self):
        """Patterns of what it must have, each to be found at least once."""
        code = [f"nodes/{self.room}/{self.code}.py", f"nodes/{self.room}/{self.code}_node.py"]
        tests = [f"tests/{self.room}/test_{self.code}*.py"]
        bench = [f"tests/bench/bench_{self.name}.py"] if self.costs else []
        workflows = [f"workflows/{self.name}.json", f"workflows/{self.name}.jpg", f"workflows/api/{self.name}.json"]
        return [*code, *tests, *bench, *workflows]


TECHNIQUES = (
    Technique("mrsa", "reference_attention", "mrsa"),
    Technique("resadapter", "resadapter", "resadapter", costs=False),
    Technique("npnet", "golden_noise", "golden_noise"),
    Technique("mip_adapter", "image_prompts", "mip_adapter"),
    Technique("edlora", "text_contexts", "edlora", costs=False),
    Technique("concept_conductor", "concept_conductor", "concept_conductor"),
)


class Node(NamedTuple):
    """`file` lies in nodes/; names of inputs and types of outputs stand in order, which may only grow at its end."""

    file: str
    inputs: str
    outputs: str


NODES = {
    "PersonalizationReference": Node(
        "references/references_node.py",
        "image word strength prompt mask region references",
        "PERSONALIZATION_REFERENCES",
    ),
    "PersonalizationReferencePreview": Node("references/references_node.py", "references", "IMAGE"),
    "PersonalizationSample": Node("samples_node.py", "picture", "IMAGE MASK"),
    "PersonalizationPocketModel": Node("pocket/pocket_node.py", "", "MODEL CLIP VAE"),
    "PersonalizationBoxMask": Node(
        "masks/box_mask_node.py", "x y width height pixel_width pixel_height feather", "MASK"
    ),
    "PersonalizationMRSA": Node(
        "reference_attention/mrsa_node.py",
        "model clip vae weight blocks custom_blocks style_fidelity start_percent end_percent reference_noise "
        "reference_seed cache_mb references",
        "MODEL",
    ),
    "PersonalizationResAdapter": Node(
        "resadapter/resadapter_node.py", "model adapter_set alpha norms norm_strength link_norms", "MODEL STRING"
    ),
    "PersonalizationResAdapterExport": Node("resadapter/resadapter_node.py", "adapter_set file_name model", "STRING"),
    "PersonalizationResolution": Node(
        "resadapter/resadapter_node.py",
        "model adapter_set aspect megapixels custom_width custom_height batch_size",
        "LATENT INT INT FLOAT STRING",
    ),
    "PersonalizationImageAdapterLoader": Node(
        "image_adapters/image_adapter_node.py", "adapter_file", "PERSONALIZATION_IMAGE_ADAPTER"
    ),
    "PersonalizationMIPAdapter": Node(
        "image_prompts/mip_adapter_node.py",
        "model adapter clip clip_vision scale merge merge_power phrase_source text_gate start_percent end_percent "
        "prompt references",
        "MODEL",
    ),
    "PersonalizationMIPMaps": Node("image_prompts/mip_adapter_node.py", "model samples images", "IMAGE"),
    "PersonalizationNPNetLoader": Node("golden_noise/npnet_node.py", "npnet_file", "PERSONALIZATION_NPNET"),
    "PersonalizationGoldenNoise": Node(
        "golden_noise/golden_noise_node.py",
        "noise npnet conditioning strength size_mode long_prompt device",
        "NOISE STRING",
    ),
    "PersonalizationGoldenNoiseModel": Node(
        "golden_noise/golden_noise_node.py",
        "model npnet conditioning strength size_mode long_prompt device",
        "MODEL",
    ),
    "PersonalizationRedenoise": Node(
        "golden_noise/redenoise_node.py",
        "noise model positive negative guidance inverse_guidance steps repeats",
        "NOISE",
    ),
    "PersonalizationNoisePairs": Node(
        "golden_noise/npnet_training_node.py",
        "model positive negative folder seed count width height guidance inverse_guidance steps",
        "STRING",
    ),
    "PersonalizationTrainNPNet": Node(
        "golden_noise/npnet_training_node.py",
        "folder file_name steps batch_size learning_rate seed npnet",
        "PERSONALIZATION_NPNET STRING",
    ),
    "PersonalizationEDLoRALoader": Node(
        "text_contexts/edlora_node.py",
        "model clip edlora_file strength_model strength_clip pooled",
        "MODEL CLIP STRING",
    ),
    "PersonalizationEDLoRAConvert": Node("text_contexts/edlora_node.py", "edlora_file file_name", "STRING"),
    "PersonalizationConcept": Node(
        "concept_conductor/concepts_node.py",
        "model positive word strength negative mask concepts",
        "PERSONALIZATION_CONCEPTS",
    ),
    "PersonalizationConceptConductor": Node(
        "concept_conductor/concept_conductor_node.py",
        "model guidance_weight guidance_end guidance_interval custom_factor gradient_space refine_start refine_end "
        "refine_interval iou_threshold kmeans_restarts rect_mask use_loss_mask inversion_steps concepts layout_image "
        "layout_positive vae unmatched close_seams cache_mb",
        "MODEL",
    ),
    "PersonalizationLayoutMask": Node(
        "masks/layout_mask_node.py", "model vae layout_image layout_positive x y clusters", "MASK"
    ),
    "PersonalizationConceptMasks": Node("concept_conductor/concept_masks_node.py", "model samples images", "IMAGE"),
}
