"""LoRA files of every kind that the host reads, with random weights, and MODELs with them in."""

import comfy.sd
import torch
from support.golden_data import case
from support.models import tiny_model

# One layer of each shape, by the host's names without "diffusion_model." (of the tiny SD1.5 UNet).
LINEAR = "output_blocks.4.1.transformer_blocks.0.attn2.to_k"
LINEARS = (
    LINEAR,
    "input_blocks.1.1.transformer_blocks.0.ff.net.0.proj",
    "time_embed.0",
    "output_blocks.3.0.emb_layers.1",
)
CONV1, CONV3, STRIDED = "output_blocks.4.1.proj_in", "output_blocks.4.0.in_layers.2", "input_blocks.3.0.op"
LAYERS = (*LINEARS, CONV1, CONV3, STRIDED)


class Maker:
    """Random weights of one file for the layers of one MODEL."""

    def __init__(self, model, seed=0, size=0.3):
        self.shapes = {k: tuple(v.shape) for k, v in model.model.diffusion_model.state_dict().items()}
        self.generator = torch.Generator().manual_seed(seed)
        self.size = size

    def random(self, *shape):
        fan = shape[1:].numel() if isinstance(shape, torch.Size) else max(1, torch.Size(shape[1:]).numel())
        return torch.randn(shape, generator=self.generator) * self.size * fan**-0.5

    def __call__(self, kind, layers=LAYERS, rank=4, alpha=None):
        """{name: tensor} of one file; kind: the name of a method below."""
        file = {}
        for layer in layers:
            parts = getattr(self, kind)(self.shapes[f"{layer}.weight"], rank)
            if alpha is not None:
                parts["alpha"] = torch.tensor(float(alpha))
            file |= {f"diffusion_model.{layer}.{name}": tensor for name, tensor in parts.items()}
        return file

    def lora(self, shape, rank):
        up = (shape[0], rank, *(1,) * (len(shape) - 2))
        return {"lora_down.weight": self.random(rank, *shape[1:]), "lora_up.weight": self.random(*up)}

    def locon_mid(self, shape, rank):
        if len(shape) == 2:
            return self.lora(shape, rank)
        return {
            "lora_down.weight": self.random(rank, shape[1], 1, 1),
            "lora_mid.weight": self.random(rank, rank, *shape[2:]),
            "lora_up.weight": self.random(shape[0], rank, 1, 1),
        }

    def loha(self, shape, rank):
        inputs = torch.Size(shape[1:]).numel()
        return {
            "hada_w1_a": self.random(shape[0], rank),
            "hada_w1_b": self.random(rank, inputs),
            "hada_w2_a": self.random(shape[0], rank),
            "hada_w2_b": self.random(rank, inputs) * 3,
        }

    def loha_tucker(self, shape, rank):
        if len(shape) == 2:
            return self.loha(shape, rank)
        parts = {f"hada_t{i}": self.random(rank, rank, *shape[2:]) for i in (1, 2)}
        parts |= {f"hada_w{i}_a": self.random(rank, shape[0]) for i in (1, 2)}
        return parts | {f"hada_w{i}_b": self.random(rank, shape[1]) * 4 for i in (1, 2)}

    def lokr(self, shape, rank):
        return {
            "lokr_w1": self.random(4, 4),
            "lokr_w2": self.random(shape[0] // 4, shape[1] // 4, *shape[2:]),
        }

    def lokr_low_rank(self, shape, rank):
        parts = {"lokr_w1_a": self.random(4, 2), "lokr_w1_b": self.random(2, 4)}
        if len(shape) == 2:
            return parts | {
                "lokr_w2_a": self.random(shape[0] // 4, rank),
                "lokr_w2_b": self.random(rank, shape[1] // 4),
            }
        return parts | {
            "lokr_t2": self.random(rank, rank, *shape[2:]),
            "lokr_w2_a": self.random(rank, shape[0] // 4),
            "lokr_w2_b": self.random(rank, shape[1] // 4),
        }

    def lokr_flat(self, shape, rank):
        """As trainers wrote convolutions at first: inputs and kernel factored together."""
        inputs = torch.Size(shape[1:]).numel()
        return {"lokr_w1": self.random(4, 16), "lokr_w2": self.random(shape[0] // 4, inputs // 16)}

    def diff(self, shape, rank):
        return {"diff": self.random(*shape), "diff_b": self.random(shape[0])}

    def dora(self, shape, rank):
        return self.lora(shape, rank) | {"dora_scale": self.random(shape[0], *(1,) * (len(shape) - 1)).abs() + 1}

    def oft(self, shape, rank):
        return {"oft_blocks": self.random(4, shape[0] // 4, shape[0] // 4)}


ADDITIVE = ("lora", "locon_mid", "loha", "loha_tucker", "lokr", "lokr_low_rank", "lokr_flat", "diff")


def loaded(model, file, strength=1.0):
    """The MODEL behind the host's own LoRA loader."""
    return comfy.sd.load_lora_for_models(model, None, dict(file), strength, 0)[0]


def unet_inputs(rows=4, size=8, kind="sd15", seed=0):
    """(x, timesteps, context, y) of a batch of the tiny UNet; rows differ."""
    generator = torch.Generator().manual_seed(seed)
    width = 48 if kind == "sdxl" else 32
    x = torch.randn(rows, 4, size, size, generator=generator)
    context = torch.randn(rows, 7, width, generator=generator)
    y = torch.randn(rows, 88, generator=generator) if kind == "sdxl" else None
    return x, torch.linspace(900, 100, rows), context, y


__all__ = ["ADDITIVE", "LAYERS", "Maker", "case", "loaded", "tiny_model", "unet_inputs"]
