"""Perfusion files (arXiv 2305.01644) of both published codes: what a concept puts into each key and value."""

from dataclasses import dataclass

import torch

from ..files.model_files import EMBEDDINGS, path_of
from ..files.safe_files import read_contents
from ..host.messages import input_error
from .mistaken_words import not_the_kind

SIDES = ("to_k", "to_v")


@dataclass(frozen=True, eq=False)
class Edit:
    """A concept's part in one projection."""

    inputs: torch.Tensor  # (D,)
    outputs: torch.Tensor  # (P, d): for all positions (1), or by position


@dataclass(frozen=True, eq=False)
class PerfusionFile:
    """One file's concepts."""

    name: str
    metric: torch.Tensor  # (D, D): the inverse of the text encoder's uncentred covariance
    # one per concept: the word's vector (D,), and {(block, side): Edit}
    vectors: tuple
    edits: tuple
    superclass: str
    stem: str


def read_perfusion(choice, blocks):
    """The PerfusionFile of a listed file for a UNet; blocks: {host key: (LDM name of its cross-attention, width of its
    keys, width of the context)} in order of execution.

    Raises ValueError for files that do not fit.
    """
    path = path_of(choice, EMBEDDINGS)
    contents = read_contents(path)
    metric = contents.get("C_inv") if isinstance(contents, dict) else None
    if not isinstance(metric, torch.Tensor):
        raise not_the_kind(contents, path.name, "Perfusion")
    width = next(iter(blocks.values()))[2]
    if metric.shape != (width, width):
        raise input_error(
            f"{path.name} has C_inv as {' x '.join(map(str, metric.shape))}, the prompts of this model are {width} "
            "wide: connect a checkpoint of the file's family"
        )
    read = _by_position if isinstance(contents.get("target_output"), dict) else _by_module
    vectors, edits, superclass = read(contents, blocks, path.name)
    _check(edits, blocks, path.name)
    if any(vector.shape != (width,) for vector in vectors):
        raise input_error(f"{path.name} has a word that is not {width} wide; connect a checkpoint of its family")
    return PerfusionFile(path.name, metric.float(), tuple(vectors), tuple(edits), superclass, path.stem)


def _by_position(contents, blocks, file):
    """One concept, whose outputs belong to positions; layers by name."""
    given, embedding = contents.get("target_input"), contents.get("embedding")
    embedding = embedding if isinstance(embedding, dict) else {}
    outputs, named = contents["target_output"], embedding.get("string_to_param")
    vector = next(iter(named.values()), None) if isinstance(named, dict) else None
    if not isinstance(given, torch.Tensor) or not isinstance(vector, torch.Tensor):
        raise input_error(f"{file} lacks target_input or its word; download the file again")
    edits = {}
    for block, (name, *_) in blocks.items():
        for side in SIDES:
            key = f"{name}.{side}.target_output"
            if not isinstance(outputs.get(key), torch.Tensor):
                raise input_error(f"{file} lacks {key}; choose a file for this checkpoint's family")
            edits[block, side] = Edit(given.float().reshape(-1), outputs[key].float())
    words = embedding.get("initializer_words")
    superclass = words[0] if isinstance(words, list) and words and isinstance(words[0], str) else ""
    return [vector.float().reshape(-1)], [edits], superclass


def _by_module(contents, blocks, file):
    """Several concepts, one output each, in the order of the trained model's modules."""
    vectors, pairs = contents.get("embed_params"), contents.get("key_value_params")
    plain = isinstance(vectors, torch.Tensor) and vectors.ndim > 0 and vectors.numel() and isinstance(pairs, list)
    if not plain or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise input_error(f"{file} lacks embed_params or key_value_params; download the file again")
    if len(pairs) != 2 * len(blocks):
        raise input_error(
            f"{file} has {len(pairs)} pairs of inputs and outputs, the model has {len(blocks)} cross-attentions and "
            f"needs {2 * len(blocks)}: choose a file for this checkpoint's family"
        )
    vectors = vectors.float().reshape(-1, vectors.shape[-1])
    if not all(isinstance(one, torch.Tensor) and _divides(len(vectors), one) for pair in pairs for one in pair):
        raise input_error(f"{file} is damaged: its pairs are not of {len(vectors)} concepts; download the file again")
    order = _order(pairs, blocks, file)
    edits = [{} for _ in vectors]
    for number, (given, made) in enumerate(pairs):
        given, made = (t.float().reshape(len(vectors), -1) for t in (given, made))
        for concept, edit in enumerate(edits):
            edit[order[number // 2], SIDES[number % 2]] = Edit(given[concept], made[concept][None])
    return list(vectors), edits, ""


def _divides(count, tensor):
    return tensor.numel() > 0 and tensor.numel() % count == 0


def _order(pairs, blocks, file):
    """The blocks in the order of the pairs: as LDM has them, or as diffusers does, with the middle last."""
    last = sorted(blocks, key=lambda block: block[0] == "middle")
    widths = [made.shape[-1] if made.ndim else 1 for _, made in pairs[::2]]
    for order in (list(blocks), last):
        if [blocks[block][1] for block in order] == widths:
            return order
    raise input_error(
        f"{file} has outputs that are {', '.join(map(str, widths[:4]))}... wide, the model's keys are "
        f"{', '.join(str(blocks[block][1]) for block in list(blocks)[:4])}...: choose a file for its family"
    )


def _check(edits, blocks, file):
    for (block, side), edit in (item for several in edits for item in several.items()):
        name, made, width = blocks[block]
        if not edit.outputs.numel() or not edit.outputs.ndim:
            raise input_error(f"{file} is damaged: {name}.{side} has no table of outputs; download the file again")
        if edit.outputs.ndim != 2 or edit.outputs.shape[-1] != made or edit.inputs.shape != (width,):
            raise input_error(
                f"{file} has outputs of {edit.outputs.shape[-1]} and inputs of {edit.inputs.shape[-1]} for "
                f"{name}.{side}, the model's are {made} and {width}: choose a file for its family"
            )
