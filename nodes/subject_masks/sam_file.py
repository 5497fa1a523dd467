"""SAM files: from the folder to the host's kind of model, its sizes told by its tensors."""

from dataclasses import dataclass

import comfy.model_management as mm
import comfy.model_patcher
import torch

from ..files.model_files import path_of, register
from ..files.safe_files import read_tensors
from ..host.messages import input_error
from .sam_keys import standard_names

SAM_KINDS = ("sams",)
# Every published SAM: the side of its pictures in pixels, that of a token, tokens along a side.
PIXELS, SAM_PATCH = 1024, 16
GRID = PIXELS // SAM_PATCH
# Published decoders have 8 heads; in a narrower one, heads of 8 channels.
_HEADS, _LEAST = 8, 8

register(*SAM_KINDS)


@dataclass(frozen=True, eq=False)
class SAM:
    """A SAM network in a patcher of the host's, which moves it to where it runs."""

    name: str
    patcher: object


def load_sam(name):
    """The SAM of a listed file; ValueError says what is wrong with it."""
    tensors = standard_names(read_tensors(path_of(name, *SAM_KINDS))[0], name)
    try:
        from transformers import SamConfig, SamModel
    except ImportError as error:
        raise input_error("SAM needs the package transformers, which comes with ComfyUI; reinstall it") from error

    try:
        with torch.device("meta"):
            model = SamModel(SamConfig(**_sizes(tensors)))
        model.load_state_dict({key: tensor.float() for key, tensor in tensors.items()}, assign=True)
    except KeyError as error:
        raise _no_sam(name, f"{error.args[0]} is missing") from error
    except (RuntimeError, ValueError, IndexError, TypeError, ZeroDivisionError) as error:
        raise _no_sam(name, " ".join(str(error).split()[:40])) from error
    held = torch.nn.Module()
    # the patcher notes the device on what it moves, which is a read-only name in a model of transformers
    held.sam = model.eval().requires_grad_(False)
    devices = {"load_device": mm.get_torch_device(), "offload_device": torch.device("cpu")}
    return SAM(name, comfy.model_patcher.ModelPatcher(held, **devices))


def _sizes(tensors):
    """The three parts of a SamConfig; KeyError names a tensor that is missing."""

    def rows(key, axis=0):
        return tensors[key].shape[axis]

    hidden, channels = rows("vision_encoder.patch_embed.projection.weight"), rows("vision_encoder.neck.conv1.weight")
    depth = len({key.split(".")[2] for key in tensors if key.startswith("vision_encoder.layers.")})
    tables = [tensors[f"vision_encoder.layers.{i}.attn.rel_pos_h"].shape for i in range(depth)]
    whole = [i for i, shape in enumerate(tables) if shape[0] == 2 * GRID - 1]
    windows = [(shape[0] + 1) // 2 for i, shape in enumerate(tables) if i not in whole]
    layers = "mask_decoder.transformer.layers."
    count = len({key.split(".")[3] for key in tensors if key.startswith(layers)})
    vision = {
        "hidden_size": hidden,
        "output_channels": channels,
        "num_hidden_layers": depth,
        "num_attention_heads": hidden // tables[0][1],
        "window_size": windows[0] if windows else 0,
        "global_attn_indexes": whole,
        "mlp_dim": rows("vision_encoder.layers.0.mlp.lin1.weight"),
        "num_pos_feats": channels // 2,
        "image_size": PIXELS,
        "patch_size": SAM_PATCH,
    }
    prompt = {
        "hidden_size": channels,
        "mask_input_channels": rows("prompt_encoder.mask_embed.conv2.weight"),
        "image_size": PIXELS,
        "patch_size": SAM_PATCH,
    }
    decoder = {
        "hidden_size": channels,
        "num_hidden_layers": count,
        "num_attention_heads": max(1, min(_HEADS, channels // _LEAST)),
        "mlp_dim": rows(f"{layers}0.mlp.lin1.weight"),
        "attention_downsample_rate": channels // rows(f"{layers}0.cross_attn_token_to_image.q_proj.weight"),
        "iou_head_hidden_dim": rows("mask_decoder.iou_prediction_head.proj_in.weight"),
    }
    return {"vision_config": vision, "prompt_encoder_config": prompt, "mask_decoder_config": decoder}


def _no_sam(name, reason):
    return input_error(f"{name} is not a SAM file of a known size: {reason}; download it again")
