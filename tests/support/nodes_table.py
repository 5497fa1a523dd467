"""The techniques, where their code lies, and the nodes with their sockets: what saved workflows rely on."""

from typing import NamedTuple


class Technique(NamedTuple):
    """`code` begins its files in nodes/<room>/ and tests/<room>/, `name` those in tests/bench/.

    `template` is the title of its template, and so the name of the files in workflows/.
    """

    name: str
    room: str
    code: str
    template: str
    # One that only changes weights and prompts costs nothing to sample with: there is nothing to measure.
    costs: bool = True

    def files(self):
        """Patterns of what it must have, each to be found at least once."""
        code = [f"nodes/{self.room}/{self.code}.py", f"nodes/{self.room}/{self.code}_node.py"]
        tests = [f"tests/{self.room}/test_{self.code}*.py"]
        bench = [f"tests/bench/bench_{self.name}.py"] if self.costs else []
        workflows = [
            f"workflows/{self.template}.json",
            f"workflows/{self.template}.jpg",
            f"workflows/api/{self.template}.json",
        ]
        return [*code, *tests, *bench, *workflows]


TECHNIQUES = (
    Technique("mrsa", "reference_attention", "mrsa", "Two subjects"),
    Technique("resadapter", "resadapter", "resadapter", "ResAdapter", costs=False),
    Technique("npnet", "golden_noise", "golden_noise", "Golden Noise"),
    Technique("mip_adapter", "image_prompts", "mip_adapter", "MIP-Adapter"),
    Technique("identity", "image_prompts", "instantid", "InstantID"),
    Technique("identity", "image_prompts", "faceid", "FaceID"),
    Technique("identity", "image_prompts", "storymaker", "StoryMaker"),
    Technique("edlora", "text_contexts", "edlora", "ED-LoRA", costs=False),
    Technique("concept_conductor", "concept_conductor", "concept_conductor", "Concept Conductor"),
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
    "PersonalizationPocketVision": Node("pocket/pocket_node.py", "", "CLIP_VISION"),
    "PersonalizationPocketLoRA": Node("pocket/pocket_node.py", "model lora strength", "MODEL"),
    "PersonalizationBoxMask": Node(
        "masks/box_mask_node.py", "x y width height pixel_width pixel_height feather", "MASK"
    ),
    "PersonalizationMRSA": Node(
        "reference_attention/mrsa_node.py",
        "model clip vae weight blocks custom_blocks style_fidelity start_percent end_percent reference_noise "
        "reference_seed cache_mb references reference_prompt reference_model",
        "MODEL",
    ),
    "PersonalizationDreamTuner": Node(
        "reference_attention/dreamtuner_node.py",
        "model clip vae omega reference_prompt start_percent end_percent reference_noise reference_seed cache_mb "
        "references",
        "MODEL",
    ),
    "PersonalizationReferenceOnly": Node(
        "reference_attention/reference_only_node.py",
        "model vae attention adain style_fidelity start_percent end_percent reference_noise reference_seed cache_mb "
        "references",
        "MODEL",
    ),
    "PersonalizationReferenceGuidance": Node(
        "reference_attention/reference_guidance_node.py",
        "model mode reference_scale share seed time_shift",
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
    "PersonalizationFaceAnalysisLoader": Node(
        "faces/faces_node.py", "face_models provider", "PERSONALIZATION_FACE_ANALYSIS"
    ),
    "PersonalizationFaceReferences": Node(
        "faces/faces_node.py",
        "face_analysis image words strength order max_faces margin references",
        "PERSONALIZATION_REFERENCES IMAGE INT",
    ),
    "PersonalizationFaceKeypoints": Node("faces/faces_node.py", "face_analysis image faces", "IMAGE MASK"),
    "PersonalizationImageAdapterLoader": Node(
        "image_adapters/image_adapter_node.py", "adapter_file", "PERSONALIZATION_IMAGE_ADAPTER"
    ),
    "PersonalizationMIPAdapter": Node(
        "image_prompts/mip_adapter_node.py",
        "model adapter clip clip_vision scale merge merge_power phrase_source text_gate start_percent end_percent "
        "prompt references",
        "MODEL",
    ),
    "PersonalizationFaceID": Node(
        "image_prompts/faceid_node.py",
        "model adapter face_analysis clip scale structure lora_strength version merge merge_power start_percent "
        "end_percent clip_vision references",
        "MODEL",
    ),
    "PersonalizationInstantID": Node(
        "image_prompts/instantid_node.py",
        "model adapter face_analysis clip scale control_strength merge merge_power views control_passes "
        "negative_noise start_percent end_percent control_start control_end control_net pose_image references",
        "MODEL",
    ),
    "PersonalizationStoryMaker": Node(
        "image_prompts/storymaker_node.py",
        "model adapter face_analysis clip_vision scale lora_strength start_percent end_percent cloth references",
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
    "PersonalizationTrainOptions": Node(
        "training/train_options_node.py",
        "lr_words lr_unet lr_text words_first lr_words_first schedule batch_size accumulate rank targets start vectors "
        "layers pull norm_limit keep_norm mask_loss attention_weight full_identity context context_prompts degrade "
        "balance noise_offset placement placements flip t_min t_max clip_norm checkpoint cache_mb",
        "PERSONALIZATION_TRAINING_OPTIONS",
    ),
    "PersonalizationTrain": Node(
        "training/train_node.py",
        "model clip vae pictures method file_name steps size seed save_every preview_every preview_prompt prior_weight "
        "class_pictures options",
        "MODEL CLIP STRING IMAGE STRING",
    ),
    "PersonalizationTrainRefineWord": Node(
        "training/refine_word_node.py", "clip word class_word prompt steps learning_rate pull", "CLIP STRING"
    ),
    "PersonalizationEDLoRALoader": Node(
        "text_contexts/edlora_node.py",
        "model clip edlora_file strength_model strength_clip pooled",
        "MODEL CLIP STRING",
    ),
    "PersonalizationEDLoRAConvert": Node("text_contexts/edlora_node.py", "edlora_file file_name", "STRING"),
    "PersonalizationConceptLoader": Node(
        "text_contexts/concept_node.py", "clip concept_file word pooled", "CLIP STRING"
    ),
    "PersonalizationConceptConvert": Node("text_contexts/concept_node.py", "concept_file file_name", "STRING"),
    "PersonalizationStagePrompts": Node(
        "text_contexts/stage_prompts_node.py",
        "clip prompt stage_1 stage_2 stage_3 stage_4 stage_5 stage_6 stage_7 stage_8 stage_9 stage_10",
        "CONDITIONING",
    ),
    "PersonalizationProSpectLoader": Node(
        "text_contexts/varying_words_node.py", "model clip prospect_file word", "MODEL CLIP STRING"
    ),
    "PersonalizationNeTILoader": Node(
        "text_contexts/varying_words_node.py", "model clip mapper_file truncation word", "MODEL CLIP STRING"
    ),
    "PersonalizationPerfusionLoader": Node(
        "text_contexts/perfusion_node.py",
        "model clip perfusion_file word strength beta tau key_lock superclass",
        "MODEL CLIP STRING",
    ),
    "PersonalizationAlignIT": Node(
        "text_contexts/alignit_node.py", "clip base_clip prompt concept class_word dummy parts", "CONDITIONING"
    ),
    "PersonalizationAlignITModel": Node("text_contexts/alignit_node.py", "model base_model", "MODEL"),
    "PersonalizationKronALoader": Node(
        "weight_deltas/weight_deltas_node.py", "model krona_file strength", "MODEL STRING"
    ),
    "PersonalizationCustomDiffusionLoader": Node(
        "weight_deltas/weight_deltas_node.py",
        "model clip delta_file strength words trained_on",
        "MODEL CLIP STRING",
    ),
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
        "masks/layout_mask_node.py", "model vae layout_image layout_positive x y clusters connected", "MASK"
    ),
    "PersonalizationFindConcepts": Node(
        "masks/find_concepts_node.py", "model clip vae image least max_side", "MASK IMAGE INT"
    ),
    "PersonalizationConceptMasks": Node("concept_conductor/concept_masks_node.py", "model samples images", "IMAGE"),
    "PersonalizationSAMLoader": Node("subject_masks/sam_node.py", "sam_file", "PERSONALIZATION_SAM"),
    "PersonalizationSubjectMask": Node(
        "subject_masks/subject_mask_node.py", "sam reference_image reference_mask images fit", "MASK STRING"
    ),
    "PersonalizationSubjectCrop": Node(
        "editing/subject_crop_node.py", "image mask size grow background", "IMAGE MASK PERSONALIZATION_CROP"
    ),
    "PersonalizationSubjectPaste": Node("editing/subject_crop_node.py", "image crop edited feather mask", "IMAGE"),
    "PersonalizationVisCtrl": Node(
        "editing/visctrl_node.py",
        "model vae positive reference_positive negative image reference_image iterations steps cfg start_step "
        "start_block later_steps later_cfg later_start",
        "IMAGE",
    ),
    "PersonalizationPILOT": Node(
        "editing/pilot_node.py",
        "model clip vae image mask prompt operations interval gamma coef lr lr_first momentum seed",
        "MODEL LATENT",
    ),
    "PersonalizationPanelGrid": Node(
        "panels/panel_node.py",
        "images layout tile_width tile_height pinned",
        "IMAGE MASK PERSONALIZATION_PANEL",
    ),
    "PersonalizationPanelCrop": Node("panels/panel_node.py", "image panel", "IMAGE"),
    "PersonalizationCLIPRank": Node(
        "panels/clip_rank_node.py", "clip_vision images text by clip references reference_images", "IMAGE STRING"
    ),
    "PersonalizationTrainPictures": Node(
        "training/training_pictures_node.py",
        "image word class_word captions templates mask pictures",
        "PERSONALIZATION_TRAINING_PICTURES",
    ),
    "PersonalizationTrainScene": Node(
        "training/training_pictures_node.py", "image masks words class_words", "PERSONALIZATION_TRAINING_PICTURES"
    ),
    "PersonalizationTrainClassPictures": Node(
        "training/training_pictures_node.py",
        "model positive negative prompt folder count width height steps cfg seed",
        "PERSONALIZATION_CLASS_PICTURES",
    ),
}
