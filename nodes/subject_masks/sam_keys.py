"""SAM files of every layout: which kind one is, by its names, and its tensors under the names of transformers."""

import re

from ..host.messages import input_error

# {what its names hold: what it is}
_OTHERS = {
    "image_encoder.layers.": "MobileSAM, whose image encoder (TinyViT) is another network",
    "image_encoder.trunk.": "SAM 2",
    "sam2_model.": "SAM 2",
    "detector.": "SAM 3",
    "sam_prompt_encoder.": "SAM 2 or later",
}
# What SAM-HQ adds to SAM: without it, it is SAM.
_HQ = re.compile(r"mask_decoder\.(?:hf_|compress_vit_feat|embedding_)")
_RENAMED = (
    (r"^image_encoder\.", "vision_encoder."),
    (r"^(vision_encoder)\.blocks\.", r"\1.layers."),
    (r"^((?:vision_encoder|mask_decoder\.transformer)\.layers\.\d+)\.norm(\d)\.", r"\1.layer_norm\2."),
    (r"\.patch_embed\.proj\.", ".patch_embed.projection."),
    (r"\.neck\.0\.", ".neck.conv1."),
    (r"\.neck\.1\.", ".neck.layer_norm1."),
    (r"\.neck\.2\.", ".neck.conv2."),
    (r"\.neck\.3\.", ".neck.layer_norm2."),
    (r"\.mask_downscaling\.0\.", ".mask_embed.conv1."),
    (r"\.mask_downscaling\.1\.", ".mask_embed.layer_norm1."),
    (r"\.mask_downscaling\.3\.", ".mask_embed.conv2."),
    (r"\.mask_downscaling\.4\.", ".mask_embed.layer_norm2."),
    (r"\.mask_downscaling\.6\.", ".mask_embed.conv3."),
    (r"\.point_embeddings\.", ".point_embed."),
    (r"\.output_upscaling\.0\.", ".upscale_conv1."),
    (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
    (r"\.output_upscaling\.3\.", ".upscale_conv2."),
    (r"\.transformer\.norm_final_attn\.", ".transformer.layer_norm_final_attn."),
    (r"(_mlps\.\d+|iou_prediction_head)\.layers\.0\.", r"\1.proj_in."),
    (r"(_mlps\.\d+|iou_prediction_head)\.layers\.1\.", r"\1.layers.0."),
    (r"(_mlps\.\d+|iou_prediction_head)\.layers\.2\.", r"\1.proj_out."),
)
_POSITIONS = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
_SHARED = ("shared_image_embedding.positional_embedding", "prompt_encoder.shared_embedding.positional_embedding")


def standard_names(tensors, name):
    """The tensors of a SAM file under the names of transformers; ValueError for another kind of file."""
    tensors = _without_prefix(tensors)
    if any(key.startswith("image_encoder.blocks.") for key in tensors):
        return _from_published(tensors)
    if any(key.startswith("vision_encoder.layers.") for key in tensors):
        found = dict(tensors)
        for one, other in (_SHARED, reversed(_SHARED)):
            # files that share the two hold one of them
            if one in found:
                found.setdefault(other, found[one])
        return found
    kind = next((kind for start, kind in _OTHERS.items() if any(start in key for key in tensors)), None)
    if kind is None and any(key.startswith("vision_encoder.") for key in tensors):
        kind = "SAM 2 or later"
    said = f"{name} is {kind}" if kind else f"{name} is not a SAM file"
    raise input_error(f"{said}; choose SAM's own file, such as sam_vit_b_01ec64.pth")


def _from_published(tensors):
    found = {}
    for key, tensor in tensors.items():
        if _HQ.match(key) or key in ("pixel_mean", "pixel_std"):
            continue
        if key == _POSITIONS:
            found |= dict.fromkeys(_SHARED, tensor)
            continue
        for old, new in _RENAMED:
            key = re.sub(old, new, key)
        found[key] = tensor
    return found


def _without_prefix(tensors):
    """Without what trainers put before all names, such as "model." and "module."."""
    for encoder in ("image_encoder.", "vision_encoder."):
        key = next((key for key in tensors if f".{encoder}" in f".{key}"), None)
        if key is not None:
            prefix = key[: f".{key}".index(f".{encoder}")]
            return {one.removeprefix(prefix): tensor for one, tensor in tensors.items()}
    return tensors
