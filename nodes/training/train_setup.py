"""The Trainer of a training that begins: networks loaded, words and LoRA at their start."""

from dataclasses import replace

import comfy.model_management as mm
import torch

from ..host.calls import live_unet
from ..host.families import family_of
from ..host.latents import LATENT_STEP
from ..host.messages import input_error, warn_user
from ..host.unet_inputs import compute_dtype
from .lora_layers import check_width
from .train_memory import chosen_checkpoint, kept_bytes
from .train_optimizer import TrainOptimizer
from .train_subjects import fresh_learned
from .trainer import Trainer
from .unet_calls import TrainedUNet
from .word_starts import check_same_length, context_width, norm_to_stop_at


def prepared(model, clip, names, classes, settings, pictures, side, seed):
    """(the Trainer of a new training on so many pictures, the function that loads its networks).

    Raises ValueError as its parts do.
    """
    base, rows = model.model, settings.rows(pictures)

    def load(checkpoint):
        needed = kept_bytes(base, rows, side // LATENT_STEP, checkpoint)
        mm.load_models_gpu([model, clip.patcher], memory_required=needed, force_full_load=True)

    # the host makes room for what it is told, so that `auto` finds it
    load(settings.checkpoint == "on")
    check_width(model, context_width(clip))
    unet = live_unet(base)
    learned, layers = fresh_learned(model, unet, clip, names, classes, settings, seed)
    if settings.norm_limit is None:
        settings = replace(settings, norm_limit=norm_to_stop_at(clip))
    pace = settings.pace(settings.length(pictures))
    optimizer = TrainOptimizer(learned, pace, half=compute_dtype(base) == torch.float16)
    called = TrainedUNet(base, unet, model.get_model_object("model_sampling"), model.load_device)
    checkpoint = chosen_checkpoint(settings.checkpoint, base, rows, side // LATENT_STEP, model.load_device)
    trainer = Trainer(called, clip, learned, layers, settings.losses(), optimizer, checkpoint)
    return trainer, lambda: load(trainer.checkpoint)


def class_latents(model, class_pictures, side):
    """(latents in the model's units, prompt) of ClassPictures, None without. ValueError for those of another model."""
    if class_pictures is None:
        return None
    latents, size = class_pictures.latents, side // LATENT_STEP
    if tuple(latents.shape[1:]) != (4, size, size):
        raise input_error(
            f"the class pictures are latents of {tuple(latents.shape[1:])}, the training's are (4, {size}, {size}); "
            f"draw Class Pictures of {side} x {side}, or set size"
        )
    if class_pictures.family not in ("", family_of(model)):
        raise input_error(
            f"the class pictures were drawn by {class_pictures.family}, this model is {family_of(model)}; draw Class "
            "Pictures with it, in another folder"
        )
    with torch.inference_mode(False):
        return model.model.process_latent_in(latents.detach().clone().float()), class_pictures.prompt


def references_of(clip, settings, names, classes):
    """[(prompt with a word, the same with its class word, the word)] that keep the rest of a prompt as it was.

    Says which words have no class word, and so none. Raises ValueError for a method without words, where there are no
    prompts to choose from, and for a class word of another length than its word.
    """
    if not settings.context:
        return []
    if not settings.words:
        raise input_error(
            f"context is {settings.context}, but this method has no word of its own whose prompts could be kept; set "
            "context to 0, or choose another method"
        )
    lines = [line.strip() for line in settings.context_prompts.splitlines() if "{}" in line]
    if not lines:
        raise input_error("context_prompts has no line with {}; enter prompts such as: {} in the desert")
    names, classes = zip(*dict(zip(names, classes, strict=True)).items())
    pairs = [(name, kind) for own, kinds in zip(names, classes) for name, kind in zip(own, kinds) if kind]
    alone = [name for own, kinds in zip(names, classes) for name, kind in zip(own, kinds) if not kind]
    if alone:
        warn_user(
            f"context does not act on {', '.join(alone)}: without a class word there is no prompt to compare with; "
            "enter what kind of thing it is"
        )
    for name, kind in pairs:
        check_same_length(clip, name, kind, 1 if settings.words > 1 else settings.vectors)
    return [(line.replace("{}", name), line.replace("{}", kind), name) for line in lines for name, kind in pairs]
