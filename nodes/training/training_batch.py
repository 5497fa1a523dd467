"""What one step of a training learns from."""

from dataclasses import dataclass, fields, replace

import torch

from ..host.gradients import normal


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """The pictures of one step, all drawn; and beside them those of their class, if any.

    latents, noise (b, 4, h, w) in the model's units; the noise with its offset; timesteps (b,) of 0..999; prompts, one
    per picture. masks (b, 1, h, w): what the loss on the noise looks at, None for everything. shown: per picture the
    words whose maps are held to regions (n, w, H, W) in 0..1, n the pictures with such words; none at all if empty.
    concepts: the number of each picture's concept, 0.. without gaps. sizes (b, 6) or None: SDXL's own, original height
    and width, corner of the crop (y, x), target height and width. reference: (prompt, the same with a class word in the
    place of a word, that word).
    """

    latents: torch.Tensor
    noise: torch.Tensor
    timesteps: torch.Tensor
    prompts: tuple
    masks: torch.Tensor | None = None
    regions: torch.Tensor | None = None
    shown: tuple = ()
    concepts: tuple = ()
    sizes: torch.Tensor | None = None
    class_latents: torch.Tensor | None = None
    class_noise: torch.Tensor | None = None
    class_timesteps: torch.Tensor | None = None
    class_prompts: tuple = ()
    reference: tuple = ()

    @property
    def all_prompts(self):
        """Of the pictures and of their class."""
        return *self.prompts, *self.class_prompts

    def on(self, device):
        """The same on a device, as tensors that a gradient may save; but sizes, which are read as numbers."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        del given["sizes"]
        tensors = {name: value for name, value in given.items() if isinstance(value, torch.Tensor)}
        return replace(self, **{name: normal(tensor.to(device)) for name, tensor in tensors.items()})

    def with_class(self, name):
        """The pictures' tensor of a name and the class's behind it."""
        own, of_class = getattr(self, name), getattr(self, f"class_{name}")
        return own if of_class is None else torch.cat([own, of_class])
