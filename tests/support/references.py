"""References on a tiny model: what most MRSA tests start from."""

import torch
from support.models import StubCLIP, conditioning, execute, sample

from pack.nodes.reference_attention.mrsa_node import MultiReferenceSelfAttention
from pack.nodes.references.references_node import AddReference


def draw(*size, seed=0):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def width_of(model):
    return model.model.model_config.unet_config["context_dim"]


def prompt(model, seed, tokens=7):
    """A conditioning for the tiny model."""
    values = {"pooled_output": draw(1, 40, seed=seed + 1)} if width_of(model) == 48 else {}
    return conditioning(draw(1, tokens, width_of(model), seed=seed), **values)


def half_mask(height=64, width=64):
    mask = torch.zeros(1, height, width)
    mask[:, :, : width // 2] = 1
    return mask


def references(count=2, sizes=((8, 8),), masks=None, **fields):
    """A chain of references of latent sizes `sizes`, half of each picture masked out."""
    chain = ()
    for i in range(count):
        height, width = sizes[i % len(sizes)]
        mask = masks[i] if masks is not None else half_mask()
        image = torch.rand(1, 8 * height, 8 * width, 3, generator=torch.Generator().manual_seed(i))
        own = {name: values[i] for name, values in fields.items()}
        (chain,) = execute(AddReference, image=image, prompt=f"picture {i}", mask=mask, references=chain, **own)
    return chain


class TinyClip(StubCLIP):
    """Any text gives a context drawn from its letters."""

    def __init__(self, model, tokens=7):
        self.model = model
        self.tokens = tokens

    def encode_from_tokens_scheduled(self, tokens):
        return prompt(self.model, seed=sum(tokens.encode()), tokens=self.tokens)


class PixelVAE:
    """encode() averages each 8 x 8 cell: latents of the right size that depend on the picture."""

    def __init__(self, channels=4):
        self.channels = channels

    def encode(self, pixels):
        cells = torch.nn.functional.avg_pool2d(pixels.movedim(-1, 1), 8)
        grey = cells.mean(1, keepdim=True) * 12 - 6
        return grey * torch.linspace(-1, 1, self.channels)[:, None, None]


def with_references(model, chain=None, **inputs):
    """The MODEL after the MRSA node."""
    chain = references() if chain is None else chain
    inputs = {"clip": TinyClip(model), "vae": PixelVAE(), "references": chain, **inputs}
    return execute(MultiReferenceSelfAttention, model=model, **inputs)[0]


def picture(model, seed=0, **kwargs):
    """Latents that the MODEL makes of two fixed prompts."""
    return sample(model, prompt(model, 100), prompt(model, 200), seed=seed, **kwargs)
