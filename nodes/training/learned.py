"""What a training learns: rows of words in text encoders, and the factors of LoRAs beside layers."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from ..text_contexts.concept_words import Word

# The parts of a LoRA, as ED-LoRA files name them, with the text encoder of the host that each is for.
UNET, TEXT_PARTS = "unet", {"text_encoder": ("l", "h"), "text_encoder_2": ("g",)}


@dataclass(eq=False)
class Learned:
    """The tensors that learn: leaves in float32, made outside of inference mode.

    words: {name: {encoder: (n, D) for n tokens, or (L, D) for one that differs by layer}}; layers: to which of a word's
    rows each cross-attention belongs, () for words that are alike at all; pools: whether SDXL's pooled text is read at
    the last word, as loaders of ED-LoRAs do; lora: {part: {module: [down, up]}}.
    """

    words: dict = field(default_factory=dict)
    layers: tuple = ()
    lora: dict = field(default_factory=dict)
    pools: bool = False

    def tensors(self):
        """{name: tensor} of all: "words.<encoder>.<word>", "<part>.<module>.lora_down.weight" and ".lora_up.weight"."""
        return {**self.word_tensors(), **self.lora_tensors()}

    def word_tensors(self):
        """Of them, the words'."""
        return {f"words.{encoder}.{name}": rows for name, own in self.words.items() for encoder, rows in own.items()}

    def lora_tensors(self, parts=(UNET, *TEXT_PARTS)):
        """Of them, the factors of some parts."""
        return {
            f"{part}.{module}.lora_{side}.weight": factor
            for part in parts
            for module, factors in self.lora.get(part, {}).items()
            for side, factor in zip(("down", "up"), factors, strict=True)
        }

    def as_words(self, every=False):
        """The Words of a CLIP, whose rows are the learned tensors themselves.

        every: with a row for each cross-attention, also where several share one.
        """
        return [
            Word(name, {encoder: self._placed(rows, every) for encoder, rows in own.items()}, self.pools)
            for name, own in self.words.items()
        ]

    def _placed(self, rows, every):
        if not self.layers:
            return rows[:, None, None]
        return rows[list(self.layers)] if every else rows


def leaf(tensor, device=None):
    """A tensor that learns, with the values of another, on a device."""
    with torch.inference_mode(False):
        return tensor.detach().float().to(device, copy=True).requires_grad_(True)


class LoraHooks:
    """A LoRA beside the layers of loaded networks, by hooks: y + up(down(x)). Weights are neither read nor changed."""

    def __init__(self, modules, lora):
        """modules: {(part, name): layer}; lora: as of Learned."""
        self.modules, self.lora = modules, lora
        # {(part, name): [down, up]} in place of the learned ones
        self.instead = {}
        self._hooks = []

    def __enter__(self):
        for key in ((part, name) for part, several in self.lora.items() for name in several):
            self._hooks.append(self.modules[key].register_forward_hook(self._hook(key)))
        return self

    def __exit__(self, *error):
        while self._hooks:
            self._hooks.pop().remove()

    def _hook(self, key):
        part, name = key

        def added(layer, inputs, out):
            down, up = self.instead.get(key) or self.lora[part][name]
            return out + beside_layer(layer, inputs[0], down, up)

        return added


def beside_layer(layer, x, down, up):
    """up(down(x)) in the dtype of x; down (r, in), up (out, r), beside a linear layer or a 1 x 1 convolution."""
    down, up = down.to(x), up.to(x)
    if isinstance(layer, torch.nn.Conv2d):
        return F.conv2d(F.conv2d(x, down[:, :, None, None]), up[:, :, None, None])
    return F.linear(F.linear(x, down), up)
