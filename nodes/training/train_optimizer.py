"""AdamW for words and LoRAs: learning rates by group, schedules, the limit of the gradient, brakes for words."""

import math
from dataclasses import dataclass

import torch

SCHEDULES = ("constant", "linear", "cosine")
# Of a loss in half precision: where its scale begins, and after how many good steps it doubles.
_SCALE, _GOOD = 2.0**16, 2000


@dataclass(frozen=True)
class OptimizerSettings:
    """Learning rates of words, the UNet's LoRA and the text encoders'; the rest of a training's pace.

    steps: of the whole training; clip_norm: the largest norm of all gradients together, 0 for any, or of the LoRA's
    alone where words are not clipped; words_first: steps in which only the words learn, at a rate of their own;
    norm_limit: the words stop when the mean norm of their rows is as large, 0 for never; keep_norm: each row keeps the
    norm that it started with; accumulate: batches per step.
    """

    lr_words: float = 0.0
    lr_unet: float = 0.0
    lr_text: float = 0.0
    steps: int = 1
    schedule: str = "constant"
    clip_norm: float = 1.0
    clip_words: bool = True
    words_first: int = 0
    lr_words_first: float = 0.0
    norm_limit: float = 0.0
    keep_norm: bool = False
    accumulate: int = 1
    decay: float = 1e-2


class TrainOptimizer:
    """Moves the tensors of a Learned. `done`: how many steps it has made."""

    def __init__(self, learned, settings, half=False):
        """half: whether the networks compute in float16, whose small gradients vanish unless the loss is scaled."""
        self.learned, self.settings = learned, settings
        self.words = learned.word_tensors()
        self.norms = {name: rows.detach().norm(dim=-1, keepdim=True) for name, rows in self.words.items()}
        unet = learned.lora_tensors(("unet",))
        text = {name: tensor for name, tensor in learned.lora_tensors().items() if name not in unet}
        groups = ((self.words, "lr_words"), (unet, "lr_unet"), (text, "lr_text"))
        self.adam = torch.optim.AdamW(
            [{"params": list(own.values()), "rate": rate, "lr": 0.0} for own, rate in groups if own],
            betas=(0.9, 0.999),
            eps=1e-8,
            weight_decay=settings.decay,
        )
        self.done, self.stopped, self.accumulate = 0, False, settings.accumulate
        self.half, self.scale, self.good = half, (_SCALE if half else 1.0), 0

    def begin(self):
        """Before a step's losses are computed: what learns in it wants gradients."""
        if self.done == self.settings.words_first and self.settings.words_first:
            # what learns from here on has no past
            self.adam.state.clear()
        for tensor in self.learned.lora_tensors().values():
            tensor.requires_grad_(not self.words_alone)
        for tensor in self.words.values():
            tensor.requires_grad_(not self.stopped)

    def backward(self, loss):
        """Adds the gradients of a loss."""
        if loss.requires_grad:
            (loss * (self.scale / self.accumulate)).backward()

    @property
    def words_alone(self):
        """Whether only the words learn in this step."""
        return self.done < self.settings.words_first

    def step(self):
        """One step of all that learns; returns the norm of the gradients before it was limited."""
        for rows in self.words.values():
            if rows.grad is None and rows.requires_grad:
                # a word that no prompt of this step had goes on as it was moving
                rows.grad = torch.zeros_like(rows)
        norm = self._unscaled()
        if norm is not None:
            for group in self.adam.param_groups:
                group["lr"] = self._rate(group["rate"])
            self.adam.step()
            self._brake()
        self.adam.zero_grad(set_to_none=True)
        self.done += 1
        return norm

    def _rate(self, name):
        settings = self.settings
        if self.words_alone:
            return settings.lr_words_first if name == "lr_words" else 0.0
        factor = 1.0
        if settings.schedule == "linear":
            factor = 1 - self.done / settings.steps
        elif settings.schedule == "cosine":
            factor = (1 + math.cos(math.pi * self.done / settings.steps)) / 2
        return getattr(settings, name) * factor

    def _unscaled(self):
        """The gradients' norm after the loss's scale is taken out, and limited; None for gradients that are none."""
        tensors = [tensor for tensor in self.learned.tensors().values() if tensor.grad is not None]
        if self.half and tensors:
            torch._foreach_div_([tensor.grad for tensor in tensors], self.scale)
            # one number says it of all, so that the device is waited for once
            if not torch.nn.utils.clip_grad_norm_(tensors, math.inf).isfinite():
                self.scale, self.good = self.scale / 2, 0
                return None
            self.good += 1
            if self.good % _GOOD == 0:
                self.scale *= 2
        if not self.settings.clip_words:
            tensors = [tensor for tensor in self.learned.lora_tensors().values() if tensor.grad is not None]
        return torch.nn.utils.clip_grad_norm_(tensors, self.settings.clip_norm or math.inf)

    @torch.no_grad()
    def _brake(self):
        if self.settings.keep_norm:
            for name, rows in self.words.items():
                rows *= self.norms[name] / rows.norm(dim=-1, keepdim=True)
        if self.settings.norm_limit and not self.stopped and self.words:
            mean = torch.cat([rows.norm(dim=-1) for rows in self.words.values()]).mean()
            self.stopped = bool(mean >= self.settings.norm_limit)
