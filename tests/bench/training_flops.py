"""FLOPs of one training step and bytes kept for its way back, counted on UNets of true shapes without data."""

from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace

import torch
from bench.flops import host_model, padding_counted, unet_config
from torch.utils.flop_counter import FlopCounterMode

from pack.nodes.training import normal_weights, train_losses
from pack.nodes.training.learned import Learned
from pack.nodes.training.lora_layers import TARGETS, unet_layers
from pack.nodes.training.methods import METHODS
from pack.nodes.training.train_optimizer import TrainOptimizer
from pack.nodes.training.trained_texts import TrainedText
from pack.nodes.training.trainer import Trainer
from pack.nodes.training.training_batch import TrainingBatch
from pack.nodes.training.unet_calls import TrainedUNet

# Counted on the networks alone for one picture: GFLOPs of a step without and with checkpoints, of words and of a LoRA.
COUNTED = {
    ("sd15", "words"): (1669, 2323),
    ("sd15", "LoRA"): (1714, 2369),
    ("sdxl", "words"): (14024, 20137),
    ("sdxl", "LoRA"): (14096, 20219),
}
FORWARD = {"sd15": 803, "sdxl": 6761}
SIZES = {"sd15": 512, "sdxl": 1024}
META = torch.device("meta")


@dataclass(frozen=True)
class StepCost:
    """Of one step: FLOPs, bytes kept at the dtype of the UNet, pictures in its batch with those of the class."""

    flops: int
    kept: int
    pictures: int


class _HollowUNet(TrainedUNet):
    """Noise levels have values, which tensors of shapes alone have not."""

    def noised(self, latents, noise, timesteps):
        return 0.5 * latents + 0.5 * noise, noise


class _HollowTexts:
    """Contexts that the learned rows lead to, without the text encoder, which costs what its prompts do."""

    def __init__(self, learned, config, dtype, layers):
        self.learned, self.width, self.dtype, self.layers = learned, config["context_dim"], dtype, layers
        self.pooled = torch.zeros(1, 1280, device=META) if config["adm_in_channels"] else None

    def of(self, prompts):
        rows = list(self.learned.word_tensors().values())
        contexts = torch.zeros(self.layers, 77, self.width, device=META)
        if rows:
            contexts = contexts + sum(one.sum() for one in rows)
        places = {name: (4 + number,) for number, name in enumerate(self.learned.words)}
        return {prompt: TrainedText(contexts, self.pooled, places) for prompt in prompts}


@torch.inference_mode(False)
def step_cost(kind, method, checkpoint=False, *, batch=1, width=320, size=None, dtype=torch.float16):
    """The StepCost of a method of METHODS, with the learning rates, loss and rank of its own, for `batch` pictures."""
    settings, size = METHODS[method], size or SIZES[kind]
    model = host_model(kind, width, dtype, META, load_device=META)
    base, config = model.model, unet_config(kind, width)
    unet = base.diffusion_model
    base.encode_adm = lambda **values: torch.zeros(1, config["adm_in_channels"] or 1, device=META)
    layers = unet_layers(base, unet, TARGETS[settings.targets]) if settings.lr_unet else {}
    learned = Learned(_words(settings, config), (), _lora(layers, settings.rank))
    optimizer = TrainOptimizer(learned, replace(settings.pace(1), words_first=0))
    losses = replace(settings.losses(), warm_up=0, pull=0.0)
    clip = SimpleNamespace(cond_stage_model=torch.nn.Module())
    called = _HollowUNet(base, unet, model.get_model_object("model_sampling"), META)
    trainer = Trainer(called, clip, learned, layers, losses, optimizer, checkpoint)
    trainer.texts = _HollowTexts(learned, config, dtype, 1 if settings.layers == "one" else len(called.blocks))
    if settings.balance:
        batch = max(2, batch)
        trainer.average = {name: torch.zeros_like(t) for name, t in learned.lora_tensors().items()}
    given = _batch(settings, learned, batch, size)
    with (
        _without_values(), trainer, padding_counted(), _bytes_kept() as kept,
        FlopCounterMode(display=False) as counter,
    ):  # fmt: skip
        trainer.step(given)
    return StepCost(counter.get_total_flops(), sum(kept.values()), len(given.all_prompts))


def floor_of(kind, method, checkpoint, pictures):
    """FLOPs that a step must cost: those of words or of a LoRA of rank 4, and a forward more for a balance."""
    settings = METHODS[method]
    what = "LoRA" if settings.lr_unet else "words"
    more = FORWARD[kind] if settings.balance else 0
    return pictures * (COUNTED[kind, what][checkpoint] + more) * 1e9


def _words(settings, config):
    names = ["<a>", "<b>"][: settings.words]
    return {name: {"l": torch.zeros(1, config["context_dim"], device=META, requires_grad=True)} for name in names}


def _lora(layers, rank):
    lora = {}
    for (part, name), layer in layers.items():
        high, wide = layer.weight.shape[:2]
        factors = (torch.zeros(shape, device=META, requires_grad=True) for shape in ((rank, wide), (high, rank)))
        lora.setdefault(part, {})[name] = list(factors)
    return lora


def _batch(settings, learned, count, size):
    side = size // 8
    latents = torch.zeros(count, 4, side, side)
    more, shown = {}, tuple(learned.words)
    if settings.maps and shown:
        per_picture = shown if settings.maps == "levels" else shown[:1]
        regions = torch.zeros(count, 1, size, size)
        more = {"regions": regions, "shown": (per_picture,) * count, "masks": latents[:, :1]}
    if settings.prior_weight:
        more |= {"class_latents": latents, "class_noise": latents, "class_timesteps": torch.zeros(count)}
        more |= {"class_prompts": ("class",) * count}
    concepts = tuple(number % 2 for number in range(count))
    return TrainingBatch(latents, latents, torch.zeros(count), ("own",) * count, concepts=concepts, **more)


@contextmanager
def _without_values():
    """What asks for a value, which meta tensors have not, takes a mean instead: no FLOPs that count."""
    real = train_losses.level_losses, train_losses.balanced_loss
    train_losses.level_losses = lambda groups, masks, full: sum(one.mean() for maps in groups.values() for one in maps)
    train_losses.balanced_loss = lambda off, moved, concepts, weight: (off.mean() + weight * moved.mean(), off)
    try:
        yield
    finally:
        train_losses.level_losses, train_losses.balanced_loss = real


@contextmanager
def _bytes_kept():
    """Yields {storage: bytes} of what the way back keeps, weights aside; inside of a checkpoint its inputs alone."""
    kept, real = {}, normal_weights.checkpoint

    def seen(tensor):
        if not isinstance(tensor, torch.nn.Parameter):
            storage = tensor.untyped_storage()
            kept[storage._cdata] = storage.nbytes()
        return tensor

    def checkpoint(forward, *inputs, **settings):
        for one in inputs:
            if isinstance(one, torch.Tensor):
                seen(one)
        return real(forward, *inputs, **settings)

    normal_weights.checkpoint = checkpoint
    try:
        with torch.autograd.graph.saved_tensors_hooks(seen, lambda tensor: tensor):
            yield kept
    finally:
        normal_weights.checkpoint = real
