"""A Trainer of the pack on the golden networks: what tests of training run on."""

import comfy.model_management as mm
import torch
from support.compare import relative
from support.models import tiny_model
from support.word_files import concept_clip

from pack.nodes.host.calls import live_unet
from pack.nodes.training.learned import leaf
from pack.nodes.training.lora_layers import TARGETS, text_layers, unet_layers
from pack.nodes.training.train_losses import LossSettings
from pack.nodes.training.train_optimizer import OptimizerSettings, TrainOptimizer
from pack.nodes.training.trainer import Trainer
from pack.nodes.training.unet_calls import TrainedUNet


def started_words(golden, names, encoder="l"):
    """{name: {encoder: rows that learn}} from the starts of a golden case."""
    return {name: {encoder: leaf(golden[f"init/{name}"])} for name in names}


def started_lora(golden):
    """{part: {module: [down, up]}} from the starts of a golden case."""
    lora = {}
    for key in sorted(golden):
        if key.startswith("lora/") and key.endswith(".lora_down.weight"):
            part, _, module = key.removeprefix("lora/").removesuffix(".lora_down.weight").partition(".")
            halves = [leaf(golden[f"lora/{part}.{module}.lora_{side}.weight"]) for side in ("down", "up")]
            lora.setdefault(part, {})[module] = halves
    return lora


def trainer_of(learned, losses=None, optimizer=None, *, model=None, clip=None, checkpoint=False):
    """A Trainer on a tiny MODEL and a CLIP, loaded by the host, whose weights are inference tensors."""
    model = model or tiny_model()
    clip = clip or concept_clip()
    mm.load_models_gpu([model, clip.patcher], force_full_load=True)
    unet = live_unet(model.model)
    trained = TrainedUNet(model.model, unet, model.get_model_object("model_sampling"), model.load_device)
    layers = {**unet_layers(model.model, unet, TARGETS["transformer"]), **text_layers(clip)}
    settings = optimizer or OptimizerSettings()
    losses = losses or LossSettings()
    return Trainer(trained, clip, learned, layers, losses, TrainOptimizer(learned, settings), checkpoint)


def near(found, expected, limit):
    error = relative(found.detach().float(), expected.float())
    assert error < limit, error


def moved(trainer, golden, name, key, limit):
    """The whole change of a learned tensor is the golden one."""
    start = golden.get(f"init/{key}", golden.get(f"lora/{key}"))
    near(trainer.tensors()[name] - start.float(), golden[f"final/{key}"] - start.float(), limit)


def near_loss(parts, golden, step, names):
    """Parts of a step's loss by the golden names."""
    for name, key in names.items():
        expected = golden[f"step{step}/{key}"]
        error = abs(float(parts[name]) / float(expected) - 1)
        assert error < 1e-5, (name, step, error)


def near_lora(trainer, golden, step, limit):
    """Gradients of the LoRA's factors that a golden step stores, and the norms of all."""
    for name, factor in trainer.learned.lora_tensors().items():
        key = f"step{step}/grad/{name}"
        if key in golden:
            near(factor.grad, golden[key], limit)
    for part in trainer.learned.lora:
        key = f"step{step}/grad/{part}/norms"
        if key in golden:
            near(norms_of(trainer, part), golden[key], limit)


def moved_lora(trainer, golden, limit):
    """The whole change of those of the LoRA's factors that the golden case stores."""
    stored = [name for name in trainer.learned.lora_tensors() if f"final/{name}" in golden]
    assert len(stored) > 8
    for name in stored:
        moved(trainer, golden, name, name, limit)


def norms_of(trainer, part="unet"):
    """(modules in alphabetical order, 2): the norms of the gradients of a LoRA's down and up."""
    lora = trainer.learned.lora[part]
    return torch.tensor([[factor.grad.norm() for factor in lora[module]] for module in sorted(lora)])
