"""What VisCtrl and PILOT must cost at least, and what they do cost, counted on UNets of any width; see flops.py."""

from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import comfy.ldm.modules.attention as host_attention
import torch
from bench.family_flops import prompt
from bench.flops import TEXT_TOKENS, Meter, attending_with, costs, hollow_model, host_model, text, unet_config
from comfy.patcher_extension import WrappersMP
from support.clips import NumberedCLIP
from support.editing import TEXT
from support.models import StubVAE, execute, random_weights, sample
from support.references import half_mask
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pack.nodes.editing.pilot_node import PILOT
from pack.nodes.editing.visctrl_node import VisCtrlNode

SIZES = {"sd15": 512, "sdxl": 1024}
SELF_ATTENTIONS = {"sd15": 16, "sdxl": 70}


@dataclass(frozen=True)
class Passes:
    """FLOPs of VisCtrl's passes: of each call of the UNet, and of a plain row, whole and up to the last self-attention.

    A pass calls it for the picture's inversion, the reference's, and the picture's way back.
    """

    calls: tuple
    row: int
    truncated: int

    def floor(self, steps, start):
        """Of one pass with a reference of its own and guidance: both inverted, one sampled, the other read on it."""
        return 6 * (steps - 1) * self.row + 2 * (steps - 1 - start) * self.truncated


def visctrl(kind, size, width=320, **inputs):
    """Passes of a picture and a reference of size x size pixels, at cfg above 1, through the public node."""
    model = hollow_model(kind, width)
    meter = model.model.diffusion_model.meter = Meter()
    patched = model.clone()
    patched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "meter", meter)
    vae = StubVAE(model, torch.zeros(2, 4, size // 8, size // 8))
    vae.decode = lambda latent: torch.zeros(len(latent), size, size, 3)
    pictures = {name: torch.zeros(1, size, size, 3) for name in ("image", "reference_image")}
    texts = {"positive": text(kind), "reference_positive": prompt(kind), "negative": text(kind)}
    execute(VisCtrlNode, model=patched, vae=vae, **pictures, **texts, **inputs)
    cost = costs(kind, size, range(SELF_ATTENTIONS[kind]), width)
    return Passes(tuple(call.useful for call in meter.calls), cost.plain, cost.truncated)


@dataclass(frozen=True)
class Operation:
    """FLOPs of one operation of PILOT: counted, of one row's forward and backward, and of what the hole adds."""

    counted: int
    row: int
    back: int
    hole: int


def pilot(kind, size, width):
    """The Operation of a picture of size x size pixels through the public node, on random weights."""
    model = host_model(kind, width)
    unet = model.model.diffusion_model
    unet.load_state_dict(random_weights(unet.state_dict(), 0))
    vae = StubVAE(model, torch.randn(1, 4, size // 8, size // 8, generator=torch.Generator().manual_seed(0)))
    given = {"clip": NumberedCLIP({}), "vae": vae, "image": torch.rand(1, size, size, 3)}
    given |= {"mask": half_mask(size, size), "prompt": TEXT, "gamma": 1.0, "interval": 1}

    def spent(operations):
        patched, _ = execute(PILOT, model=model, operations=operations, **given)
        with counting() as counter:
            sample(patched, text(kind), latent=(1, 4, size // 8, size // 8), sigmas=torch.tensor([5.0, 0.0]))
        return counter.get_total_flops()

    row, back = there_and_back(kind, size, width)
    return Operation(spent(2) - spent(1), row, back, of_the_hole(kind, size, width))


@cache
@torch.inference_mode(False)
@torch.enable_grad()
def there_and_back(kind, size, width=320):
    """FLOPs of one row of the UNet and of the way back to its latent; nothing of the pack takes part."""
    unet = host_model(kind, width, device="meta").model.diffusion_model.requires_grad_(False)
    meta, config = torch.device("meta"), unet_config(kind, width)
    x = torch.zeros(1, 4, size // 8, size // 8, device=meta, requires_grad=True)
    context = torch.zeros(1, TEXT_TOKENS, config["context_dim"], device=meta)
    y = torch.zeros(1, config["adm_in_channels"], device=meta) if config["adm_in_channels"] else None
    with counting() as counter:
        # the counter takes no leaf as a module's input
        out = unet(x + 0, torch.zeros(1, device=meta), context, y, None, {})
        row = counter.get_total_flops()
        torch.autograd.grad(out.sum(), x)
    return row, counter.get_total_flops() - row


def of_the_hole(kind, size, width=320):
    """FLOPs of a hole that reaches every level, there and back: each token reads the text's start as well as the text,
    and the words' shares are taken anew at all levels but the finest.
    """
    looks = costs(kind, size, range(SELF_ATTENTIONS[kind]), width).blocks
    finest = max(tokens for tokens, _ in looks)
    again = sum(8 * tokens * TEXT_TOKENS * channels for tokens, channels in looks)
    return again + sum(4 * tokens * TEXT_TOKENS * channels for tokens, channels in looks if tokens < finest)


@contextmanager
def counting():
    """Counts FLOPs of attention as of the two products that it consists of."""
    with (
        attending_with(host_attention.attention_pytorch), sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):  # fmt: skip
        yield counter
