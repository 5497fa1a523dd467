"""One trainer for all methods: step(batch) -> the losses, with gradients; update() -> the learned tensors move."""

from contextlib import ExitStack, contextmanager
from dataclasses import replace

import torch

from ...kernels.training_losses import context_loss, moved_average
from .learned import LoraHooks
from .normal_weights import checkpointed, normal_weights, packed_passed, summed_apart
from .train_losses import attention_loss, loss_of_pull, noise_loss
from .trained_texts import TrainedTexts
from .word_maps_kept import KeptMaps, quarter_grid

# How much of the average of a LoRA stays at each step (MagicTailor).
_KEPT = 0.99


class Trainer:
    """Steps of a training on loaded networks, to be entered: inside, gradients are on and can pass the networks."""

    def __init__(self, unet, clip, learned, layers, losses, optimizer, checkpoint=False):
        """unet: a TrainedUNet; layers: {(part, name): layer} of the LoRA; losses: LossSettings; optimizer: a
        TrainOptimizer of the learned tensors; checkpoint: less memory for more time.
        """
        self.unet, self.clip, self.losses, self.optimizer = unet, clip, losses, optimizer
        self.learned, self.checkpoint = learned, checkpoint
        self.hooks = LoraHooks(layers, learned.lora)
        self.texts = TrainedTexts(clip, learned, text_lora=any(part != "unet" for part in learned.lora))
        self.starts = {name: rows.detach().clone() for name, rows in learned.word_tensors().items()}
        # {name: tensor}: of the LoRA, for the balance among concepts; None before the first balanced step
        self.average = None
        self._entered = ExitStack()

    def tensors(self):
        """{name: tensor} of all that learns."""
        return self.learned.tensors()

    @property
    def balanced(self):
        """Whether concepts are balanced in this step."""
        return self.losses.noise == "balance" and self.optimizer.done >= self.losses.warm_up

    def learn_all_from(self, step):
        """All learn from this step on, where words alone, or concepts without a balance, had gone before."""
        self.losses = replace(self.losses, warm_up=step)
        if self.losses.noise != "balance":
            self.optimizer.settings = replace(self.optimizer.settings, words_first=step)

    def __enter__(self):
        self.hooks.__enter__()
        try:
            self._open()
        except BaseException:
            self.hooks.__exit__()
            raise
        return self

    def __exit__(self, *error):
        try:
            self._entered.close()
        finally:
            self.hooks.__exit__()

    @contextmanager
    def paused(self, load):
        """Inside, the networks are as the host has them, but for the LoRA's hooks. load(): loads them again behind."""
        self._entered.close()
        yield
        load()
        self._open()

    def _open(self):
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(normal_weights(self.unet.unet, self.clip.cond_stage_model))
            stack.enter_context(packed_passed(self.unet.unet, self.clip.cond_stage_model))
            stack.enter_context(summed_apart(self.clip.cond_stage_model))
            stack.enter_context(checkpointed(self.unet.unet, self.checkpoint))
            self._entered = stack.pop_all()

    def step(self, batch):
        """{"loss": ..., "loss_<part>": ...} of a batch, detached; its gradients are added to the learned tensors'."""
        self.optimizer.begin()
        batch = batch.on(self.unet.device)
        found = self.texts.of([*batch.all_prompts, *batch.reference[:2]])
        texts = [found[prompt] for prompt in batch.all_prompts]
        latents, noise, timesteps = (batch.with_class(name) for name in ("latents", "noise", "timesteps"))
        mixed, target = self.unet.noised(latents, noise, timesteps)
        maps = self._maps(batch, texts)
        out = self.unet.predicted(mixed, timesteps, texts, batch.sizes, maps)
        average = self._by_average(mixed, timesteps, texts, batch)
        own = len(batch.latents)
        losses = noise_loss(self.losses, out[:own], target[:own], batch, self.balanced, average)
        if maps is not None:
            found_maps = maps.close()
            losses["attention"] = attention_loss(self.losses, found_maps, batch, quarter_grid(mixed.shape[-2:]))
        if len(out) > own:
            losses["prior"] = self.losses.prior_weight * (out[own:] - target[own:]).square().mean()
        losses |= self._of_words(batch, found)
        terms = [
            losses[name] for name in ("noise", "attention", "prior", "pull", "context") if losses.get(name) is not None
        ]
        loss = sum(terms)
        self.optimizer.backward(loss)
        losses = {f"loss_{name}": part.detach() for name, part in losses.items() if part is not None}
        return {"loss": loss.detach(), **losses}

    def update(self):
        """The optimiser's step on the gradients that were added up; returns their norm before it was limited."""
        balanced = self.balanced
        norm = self.optimizer.step()
        if balanced:
            with torch.no_grad():
                self.average = moved_average(self.average, self.learned.lora_tensors(), _KEPT)
        return norm

    def _maps(self, batch, texts):
        if not (self.losses.maps and self.losses.attention_weight and batch.shown):
            return None
        own = len(batch.latents)
        return KeptMaps(self.unet.blocks, self.losses.maps, texts[:own], batch.shown)

    def _by_average(self, mixed, timesteps, texts, batch):
        """What the average of the LoRA predicts of the pictures (b, 4, h, w), without a gradient; None before it is."""
        if not self.balanced or self.average is None:
            return None
        self.hooks.instead = {
            (part, name): [self.average[f"{part}.{name}.lora_{side}.weight"] for side in ("down", "up")]
            for part, several in self.learned.lora.items()
            for name in several
        }
        own = slice(len(batch.latents))
        sizes = None if batch.sizes is None else batch.sizes[own]
        try:
            with torch.no_grad():
                return self.unet.predicted(mixed[own], timesteps[own], texts[own], sizes)
        finally:
            self.hooks.instead = {}

    def _of_words(self, batch, texts):
        losses, rows = {}, self.learned.word_tensors()
        if self.losses.pull and rows:
            losses["pull"] = self.losses.pull * loss_of_pull(list(rows.values()), [self.starts[name] for name in rows])
        if self.losses.context and batch.reference:
            prompt, plain, word = batch.reference
            own, other = texts[prompt], texts[plain]
            loss = context_loss(own.contexts[0], other.contexts[0].detach(), own.places[word])
            losses["context"] = self.losses.context * loss
        return losses
