"""ED-LoRA: joins a MODEL and a CLIP as the host's own LoRA patches, new words and layer-wise prompts."""

import comfy.lora
import comfy.utils

from ..host.attach import attach
from ..host.bare_unet import on_bare_unet
from ..host.blocks import attention_blocks, unet_of
from ..host.choices import check_listed, check_number
from ..host.clip_text import check_clip
from ..host.families import family_of
from ..host.messages import input_error, warn_user
from ..host.weight_patching import with_weight_patches
from .concept_words import POOLED, Word, with_words, words_of
from .context_router import ContextRouter
from .edlora_file import read_edlora
from .edlora_lora import lora_weights

# Of SD1.x and SDXL, in the order of a word's rows.
_ENCODERS = ("l", "g")


@on_bare_unet
def attach_edlora(model, clip, choice, *, strength_model=0.7, strength_clip=0.7, pooled="concept"):
    """(the MODEL and the CLIP with an ED-LoRA of the loras folder, its words).

    W + strength * up . down in both, the words usable in any prompt that this CLIP encodes. pooled: SDXL's pooled text
    is read at the last "concept" word, as the published code does, or at the prompt's end ("eos"). What came in stays
    as it was. Raises ValueError, before anything is patched, for a file that does not fit in whole.
    """
    for name, value in {"strength_model": strength_model, "strength_clip": strength_clip}.items():
        check_number(name, value)
    check_listed("pooled", pooled, POOLED)
    unet = unet_of(model, "ED-LoRA")
    check_clip(clip)
    edlora = read_edlora(choice)
    _check_family(edlora, model)
    _check_layers(edlora, len(attention_blocks(unet)))
    _check_words(edlora, clip)
    unet_patches, text_patches = _patches(edlora, model, clip)
    model = _patched(model, unet_patches, strength_model)
    clip = _patched(clip, text_patches, strength_clip)
    known = {word.name for word in words_of(clip)} & set(edlora.words)
    if known:
        warn_user(f"{edlora.name}: {', '.join(sorted(known))} already defined by an earlier ED-LoRA; replaced")
    clip = with_words(clip, [_word(name, rows, pooled) for name, rows in edlora.words.items()])
    if edlora.layers > 1:
        model = attach(model, ContextRouter(("ED-LoRA",)))
    return model, clip, " ".join(edlora.words)


def _word(name, rows, pooled):
    present = {encoder: tensor for encoder, tensor in zip(_ENCODERS, rows, strict=True) if tensor is not None}
    return Word(name, present, pools=pooled == "concept")


def _check_family(edlora, model):
    family = family_of(model)
    width = model.model.model_config.unet_config["context_dim"]
    if family not in ("SD1.5", "SDXL"):
        raise input_error(
            f"ED-LoRAs work on SD1.5 and SDXL; this model is {family}: connect an SD1.5 or SDXL checkpoint"
        )
    if edlora.is_sdxl != (family == "SDXL") or edlora.width not in (None, width):
        said = f" ({edlora.width} wide)" if edlora.width else ""
        raise input_error(
            f"{edlora.name} is an ED-LoRA for {edlora.family or 'another model'}{said}, the model is {family} "
            f"({width} wide): choose a file for {family}"
        )


def _check_layers(edlora, expected):
    if edlora.layers not in (1, expected):
        raise input_error(
            f"{edlora.name} is not an ED-LoRA for this model: {edlora.layers} rows, expected {expected} (one for each "
            "cross-attention) or 1; choose a file for this checkpoint's family"
        )


def _check_words(edlora, clip):
    for number, encoder in enumerate(_ENCODERS):
        rows = {name: pair[number] for name, pair in edlora.words.items() if pair[number] is not None}
        network = getattr(clip.cond_stage_model, f"clip_{encoder}", None)
        if not rows and edlora.words and network is not None:
            raise input_error(
                f"{edlora.name} has no words for the text encoder clip_{encoder}, which this clip has; connect the "
                "clip of the model's own family"
            )
        if not rows:
            continue
        if network is None:
            raise input_error(
                f"{edlora.name} has words for the text encoder clip_{encoder}, which this clip lacks; connect the clip "
                "of the model's own family"
            )
        width = network.transformer.get_input_embeddings().weight.shape[1]
        for name, tensor in rows.items():
            if tensor.shape[1] != width:
                raise input_error(
                    f"{edlora.name}: {name} is {tensor.shape[1]} wide, the text encoder clip_{encoder} expects "
                    f"{width}; connect the clip of the model's own family"
                )


def _patches(edlora, model, clip):
    """(patches of the UNet, patches of the text encoders) by the host's keys; all of the file's, or ValueError."""
    weights = lora_weights(edlora)
    unet_keys = comfy.lora.model_lora_keys_unet(model.model, {})
    text_keys = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, {})
    modules = {name.partition(".")[0] for name in weights}
    missing = sorted(modules - set(unet_keys) - set(text_keys))
    if missing:
        raise input_error(
            f"{edlora.name} changes {missing[0]}, which this model or clip does not have ({len(missing)} of "
            f"{len(modules)} parts): choose a file for this checkpoint's family"
        )
    found = []
    for owner, keys in ((model.model, unet_keys), (clip.patcher.model, text_keys)):
        used = {module: keys[module] for module in modules if module in keys}
        for module, key in used.items():
            # of the layer's own weight: a state dict has packed ones in their packed shapes
            _check_shape(edlora, module, weights, comfy.utils.get_attr(owner, key).shape)
        found.append(comfy.lora.load_lora({n: t for n, t in weights.items() if n.partition(".")[0] in used}, used))
    return found


def _check_shape(edlora, module, weights, shape):
    down, up = weights[f"{module}.lora_down.weight"], weights[f"{module}.lora_up.weight"]
    if up.shape[0] != shape[0] or down[0].numel() != shape[1:].numel():
        raise input_error(
            f"{edlora.name} changes {module} as {up.shape[0]} x {down[0].numel()}, the model's is {shape[0]} x "
            f"{shape[1:].numel()}: choose a file for this checkpoint's family"
        )


def _patched(owner, patches, strength):
    return with_weight_patches(owner, patches, strength, what="model or clip") if strength else owner.clone()
