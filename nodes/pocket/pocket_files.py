"""The pocket model's weight files: read, checked, and widened to the shapes that SD1.5's prompts have."""

import json
import math
from pathlib import Path

import torch

from ..files.safe_files import read_tensors
from ..host.messages import input_error
from ..host.seeded import seeded_noise

FOLDER = Path(__file__).parent
# the width of SD1.5's prompts, and CLIP's vocabulary
WIDTH, VOCABULARY = 768, 49408
# what the metadata of each file must say beside the network's config: one number, which a function reads
SAID = {"unet": ("groups", int), "text_encoder": ("deviation", float), "autoencoder": ("groups", int)}
# numbers of the config that we read ourselves
COUNTS = {
    "unet": ("context_dim", "num_heads"),
    "text_encoder": ("hidden_size", "num_attention_heads"),
    "autoencoder": (),
}
TABLE = "text_model.embeddings.token_embedding.weight"


def read_part(name, folder=FOLDER):
    """({weight name: tensor}, config, {metadata}) of one of the files; ValueError says what is wrong with it."""
    path = Path(folder) / f"{name}.safetensors"
    if not path.is_file():
        raise input_error(f"the pocket model's file {path} is missing; reinstall the pack, which contains it")
    tensors, metadata = read_tensors(path)
    key, kind = SAID[name]
    if not {"config", key} <= set(metadata):
        raise input_error(f"{path.name} does not say what network it is for; reinstall the pack")
    try:
        config, number = json.loads(metadata["config"]), kind(metadata[key])
    except (ValueError, RecursionError):
        config, number = None, 0
    counts = [config.get(one) for one in COUNTS[name]] if isinstance(config, dict) else [0]
    if not all(isinstance(count, int) and count > 0 for count in counts) or not (math.isfinite(number) and number > 0):
        raise input_error(f"the metadata of {path.name} is damaged; reinstall the pack")
    return tensors, config, metadata


def check(module, tensors, name):
    """Raises ValueError unless these tensors are the weights of this module, in name and shape."""
    wanted = {key: tuple(t.shape) for key, t in module.state_dict().items()}
    for key, shape in wanted.items():
        if key not in tensors:
            raise input_error(f"the pocket model's {name}.safetensors lacks {key}; reinstall the pack")
        if tuple(tensors[key].shape) != shape:
            found = list(tensors[key].shape)
            raise input_error(f"{name}.safetensors has {key} of shape {found}, not {list(shape)}; reinstall the pack")
    for key in tensors.keys() - wanted.keys():
        raise input_error(
            f"the pocket model's {name}.safetensors contains an unexpected tensor {key}; reinstall the pack"
        )


def regroup(module, groups):
    """Gives all group norms of a network so many groups; the host's 32 are too many for its few channels.

    Raises ValueError for a number that does not divide their channels.
    """
    for part in module.modules():
        if isinstance(part, torch.nn.GroupNorm):
            if part.num_channels % groups:
                raise input_error(f"{groups} groups do not fit the pocket model's networks; reinstall the pack")
            part.num_groups = groups


def all_tokens(tensors, deviation):
    """The text encoder's weights with a row for each token: those of the world's words, and fixed noise elsewhere."""
    tensors = dict(tensors)
    rows, ids = tensors.pop("token_rows"), tensors.pop("token_ids")
    table = (seeded_noise("pocket tokens", (VOCABULARY, rows.shape[1])) * deviation).to(rows.dtype)
    table[ids] = rows
    return {**tensors, TABLE: table}


def widen_text_encoder(tensors, config):
    """(weights, config) of a text encoder WIDTH wide whose output repeats that of this narrower one.

    Each state x becomes [x, x, ...]: mean and variance stay, so the norms do what they did, and a matrix that reads
    the state divides by the number of copies.
    """
    times = _copies(config["hidden_size"])
    wide = {}
    for name, t in tensors.items():
        kind = name.rsplit(".", 2)[-2:]
        if "embedding" in name:
            wide[name] = t.repeat(1, times)
        elif kind == ["fc1", "weight"]:
            wide[name] = t.repeat(1, times) / times
        elif kind == ["fc2", "weight"]:
            wide[name] = t.repeat(times, 1)
        elif kind[0] == "fc1":
            wide[name] = t
        elif t.ndim == 2:
            wide[name] = t.repeat(times, times) / times
        else:
            wide[name] = t.repeat(times)
    # SD1.5 does not use the pooled output
    wide["text_projection.weight"] = torch.eye(WIDTH, dtype=tensors[TABLE].dtype)
    heads = config["num_attention_heads"] * times
    return wide, config | {"hidden_size": WIDTH, "num_attention_heads": heads}


def widen_unet(tensors, config):
    """(weights, config) of a UNet that reads prompts WIDTH wide, made of copies of those that this one reads."""
    times = _copies(config["context_dim"])
    wide = {
        name: t.repeat(1, times) / times if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")) else t
        for name, t in tensors.items()
    }
    return wide, config | {"context_dim": WIDTH}


def _copies(width):
    if WIDTH % width:
        raise input_error(f"a pocket model {width} wide cannot be widened to {WIDTH}; reinstall the pack")
    return WIDTH // width
