"""What a training writes, and the MODEL and CLIP that its files give: the layouts that stock loaders and ours read."""

import json
import re

import comfy.sd
import torch

from ..files.lora_names import PART_NAMES
from ..files.model_files import EMBEDDINGS, LORAS
from ..files.new_files import in_folder
from ..text_contexts.concept_words import Word
from ..text_contexts.edlora import attach_edlora
from ..text_contexts.taught_clip import taught_clip

# Under this name a file says in its metadata which training wrote it.
TRAINED_BY = "training"
# The names of a LoRA's parts in files of kohya's kind: of a family of two text encoders, and of one.
_KOHYA = {"unet": ("lora_unet_",) * 2, "text_encoder": ("lora_te1_", "lora_te_"), "text_encoder_2": ("lora_te2_",) * 2}


def files_of(learned, kind, stem):
    """{path: tensors} of what was learned; the first is the file that has everything.

    kind: "words", "LoRA" or "ED-LoRA"; stem: the name that the user entered, without an ending.
    """
    if kind == "ED-LoRA":
        return {in_folder(LORAS, f"{stem}.safetensors"): edlora_tensors(learned)}
    rows = {name: word_tensors(own) for name, own in learned.words.items()}
    found = {}
    if kind == "LoRA":
        found[in_folder(LORAS, f"{stem}.safetensors")] = lora_tensors(learned)
    if rows:
        found[in_folder(EMBEDDINGS, f"{stem}.safetensors")] = _in_order(list(rows.values()))
    if len(rows) > 1:
        for part, tensors in zip(_apart(rows), rows.values(), strict=True):
            found[in_folder(EMBEDDINGS, f"{stem}_{part}.safetensors")] = tensors
    return found


def _apart(names):
    """What stands for each name in its file's name: its letters, with a number where others have the same ones."""
    taken = []
    for number, name in enumerate(names, 1):
        part = re.sub(r"[^\w-]+", "", name) or str(number)
        # some disks see no difference between small and large letters
        while part.casefold() in taken:
            part = f"{part}_{number}"
        taken.append(part.casefold())
        yield part


def word_tensors(own):
    """{"clip_l": (n, D), ...} of a word's rows by encoder, as the host's `embedding:` reads them."""
    return {f"clip_{encoder}": rows.detach().cpu().float() for encoder, rows in own.items()}


def lora_tensors(learned):
    """A LoRA in kohya's names, in half precision, whose factor is 1 for every reader; words inside as a bundle."""
    tensors, single = {}, "text_encoder_2" not in learned.lora
    for part, modules in learned.lora.items():
        for module, (down, up) in modules.items():
            name = f"{_KOHYA[part][single]}{module.replace('.', '_')}"
            tensors[f"{name}.{PART_NAMES['down']}"] = down.detach().cpu().half()
            tensors[f"{name}.{PART_NAMES['up']}"] = up.detach().cpu().half()
            tensors[f"{name}.{PART_NAMES['alpha']}"] = torch.tensor(float(down.shape[0])).half()
    for word, own in learned.words.items():
        tensors |= {f"bundle_emb.{word}.{key}": rows for key, rows in word_tensors(own).items()}
    return tensors


def edlora_tensors(learned):
    """An ED-LoRA: a row of each word for every cross-attention, and factors without an alpha."""
    tensors = {}
    for word, own in learned.words.items():
        for encoder, rows in own.items():
            name = "new_concept_embedding_2" if encoder == "g" else "new_concept_embedding"
            every = rows[list(learned.layers)] if learned.layers else rows
            tensors[f"{name}.{word}"] = every.detach().cpu().float()
    for name, factor in learned.lora_tensors().items():
        tensors[name] = factor.detach().cpu().float()
    return tensors


def metadata_of(learned, settings, family, mark):
    """What a file says of itself: rank, family, settings; no paths, nothing of the pictures."""
    rank = next((down.shape[0] for modules in learned.lora.values() for down, _ in modules.values()), 0)
    said = {"settings": settings, "family": family}
    of_lora = {"ss_network_dim": str(rank), "ss_network_alpha": str(rank)} if rank else {}
    versions = {"SD1.5": "sd_v1", "SD2.x": "sd_v2", "SDXL": "sdxl_base_v1-0"}
    return {
        **of_lora,
        "ss_base_model_version": versions.get(family, family),
        "personalization_training": json.dumps(said),
        TRAINED_BY: mark,
    }


def with_trained(model, clip, learned, kind, files):
    """(MODEL, CLIP) with what was learned as ordinary patches and words: what the files give when they are loaded."""
    if kind == "ED-LoRA":
        (path,) = files
        model, clip, _ = attach_edlora(model, clip, path.name, strength_model=1.0, strength_clip=1.0, pooled="concept")
        return model, clip
    if kind == "LoRA":
        tensors = {name: t for name, t in next(iter(files.values())).items() if not name.startswith("bundle_emb.")}
        model, clip = comfy.sd.load_lora_for_models(model, clip, tensors, 1.0, 1.0)
    words = [
        Word(name, {encoder: rows.detach().cpu()[:, None, None] for encoder, rows in own.items()})
        for name, own in learned.words.items()
    ]
    return model, taught_clip(clip, words, next(iter(files)).name) if words else clip


def _in_order(several):
    return {key: torch.cat([tensors[key] for tensors in several]) for key in several[0]}
