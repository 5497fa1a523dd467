"""FLOPs of one UNet call, counted while the host really samples, and the floor that MRSA cannot go below.

The UNet has its true shape but no data: it computes on the meta device, so that a full SDXL takes seconds and no
memory. All the rest, the host's sampler and the pack's nodes, runs on real tensors as always.
"""

import copy
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import comfy.ldm.modules.attention as host_attention
import comfy.model_management as mm
import comfy.model_patcher
import comfy.supported_models
import torch
import torch.nn.functional as F
from comfy.patcher_extension import WrappersMP
from support.models import StubCLIP, StubVAE, conditioning, execute, sample
from torch.utils.flop_counter import FlopCounterMode

from pack.nodes.reference_attention.mrsa_node import MultiReferenceSelfAttention
from pack.nodes.references.references_node import AddReference

TEXT_TOKENS = 77
# The mean coverage of the masks in FreeCustom's examples.
COVERAGE = 0.224


def unet_config(kind, width=320):
    """The host's configuration of an SD1.5 ("sd15") or SDXL UNet; width 320 is the true one, multiples of 32 go.

    A narrower one has fewer heads, where it can (width 160) as long as the true ones: padding depends on that length.
    """
    heads = next(heads for heads in range(max(1, width // 40), 0, -1) if width % heads == 0)
    config = dict(image_size=32, in_channels=4, out_channels=4, model_channels=width, use_spatial_transformer=True,
                  legacy=False, use_temporal_attention=False, use_temporal_resblock=False)  # fmt: skip
    if kind == "sd15":
        return config | dict(
            num_res_blocks=[2] * 4, channel_mult=[1, 2, 4, 4], transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0],
            transformer_depth_output=[1] * 9 + [0] * 3, transformer_depth_middle=1, context_dim=768,
            use_linear_in_transformer=False, adm_in_channels=None, num_heads=heads, num_head_channels=-1,
        )  # fmt: skip
    return config | dict(
        num_res_blocks=[2] * 3, channel_mult=[1, 2, 4], transformer_depth=[0, 0, 2, 2, 10, 10],
        transformer_depth_output=[0, 0, 0, 2, 2, 2, 10, 10, 10], transformer_depth_middle=10, context_dim=2048,
        use_linear_in_transformer=True, adm_in_channels=2816, num_classes="sequential", num_heads=-1,
        num_head_channels=64,
    )  # fmt: skip


def host_model(kind, width=320, dtype=torch.float32, device="cpu", load_device=None):
    """A MODEL of the host whose UNet lies on `device`, its weights not yet set."""
    config = unet_config(kind, width) | {"dtype": dtype}
    host_class = {"sd15": comfy.supported_models.SD15, "sdxl": comfy.supported_models.SDXL}[kind]
    described = host_class(dict(config))
    # the class writes its own number of heads over ours
    described.unet_config.update({name: config[name] for name in ("num_heads", "num_head_channels")})
    described.set_inference_dtype(dtype, None)
    base = described.get_model({}, "", device=device).eval()
    load_device = load_device or mm.get_torch_device()
    return comfy.model_patcher.ModelPatcher(base, load_device=load_device, offload_device=torch.device("cpu"))


def hollow_model(kind, width=320):
    """A MODEL that is sampled on the CPU as any other, but whose UNet returns zeros and computes only shapes."""
    model = host_model(kind, width, device="meta", load_device=torch.device("cpu"))
    unet = model.model.diffusion_model
    inside = copy.deepcopy(unet)
    # what the host loads: one number behind every weight
    for module in unet.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                one = torch.zeros((), dtype=weight.dtype).expand(weight.shape)
                module._parameters[name] = torch.nn.Parameter(one, requires_grad=False)

    def forward(x, timesteps, context, y, control, transformer_options, **kwargs):
        on_meta = (t.to("meta") if t is not None else None for t in (x, timesteps, context, y))
        with unet.meter.forward(x.shape[0]):
            out = inside._forward(*on_meta, control, transformer_options, **kwargs)
        return x.new_zeros(out.shape)

    unet._forward = forward
    # where the work is done, for hooks on its modules; a list, so that it is none of the UNet's own
    unet.inside = [inside]
    # it takes no memory, so how many rows run at once must not depend on what the machine has left
    model.model.memory_required = lambda *args, **kwargs: 0
    return model


@dataclass(frozen=True)
class Count:
    """FLOPs of some work on `rows` rows; `padding` of them went into channels that carry a bias."""

    rows: int
    flops: int
    padding: int

    @property
    def useful(self):
        return self.flops - self.padding


class Meter:
    """Counts calls of the UNet as the sampler makes them, and the forwards that each of them consists of."""

    def __init__(self):
        self.calls = []
        self.forwards = []
        self._counter = None
        self._padding = None

    def __call__(self, executor, x, *args, **kwargs):
        """DIFFUSION_MODEL wrapper: one call, with all that hangs on it."""
        self.forwards.append([])
        with FlopCounterMode(display=False) as self._counter, padding_counted() as self._padding:
            out = executor(x, *args, **kwargs)
            self.calls.append(Count(x.shape[0], *self._spent()))
        return out

    @contextmanager
    def forward(self, rows):
        """One pass through the UNet, finished or not."""
        before = self._spent()
        try:
            yield
        finally:
            flops, padding = (now - then for now, then in zip(self._spent(), before, strict=True))
            self.forwards[-1].append(Count(rows, flops, padding))

    def _spent(self):
        return self._counter.get_total_flops(), sum(self._padding)


def mask_of(coverage):
    """A binary mask (32, 32), exact on grids that are multiples of it; None: the whole picture."""
    if coverage == 1:
        return None
    mask = torch.zeros(32 * 32)
    mask[: round(coverage * len(mask))] = 1
    return mask.view(32, 32)


def patched(model, kind, size, references, mask=None, **inputs):
    """The MODEL with that many references of size x size pixels, through the public nodes."""
    chain = ()
    for i in range(references):
        picture = torch.full((1, size, size, 3), i / 10)
        (chain,) = execute(AddReference, image=picture, prompt="a picture", mask=mask, references=chain)
    clip = StubCLIP({"a picture": tuple(text(kind)[0])})
    vae = StubVAE(model, torch.zeros(references, 4, size // 8, size // 8))
    return execute(MultiReferenceSelfAttention, model=model, clip=clip, vae=vae, references=chain, **inputs)[0]


def text(kind, **values):
    """A CONDITIONING as the model of a kind takes it."""
    if kind == "sdxl":
        return conditioning(torch.zeros(1, TEXT_TOKENS, 2048), pooled_output=torch.zeros(1, 1280), **values)
    return conditioning(torch.zeros(1, TEXT_TOKENS, 768), **values)


def counted(model, kind, size, sigmas, batch=1, positive=None):
    """A Meter with one call per sigma of a sampling run (a last 0 is added), each with both rows of CFG."""
    meter = model.model.diffusion_model.meter = Meter()
    model = model.clone()
    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "meter", meter)
    latent = (batch, 4, size // 8, size // 8)
    sample(model, positive or text(kind), text(kind), latent=latent, sigmas=torch.tensor([*sigmas, 0.0]))
    return meter


@contextmanager
def attending_with(function):
    """Inside, the host's UNets attend with another function."""
    names = ("optimized_attention", "optimized_attention_masked")
    standing = {name: getattr(host_attention, name) for name in names}
    for name in names:
        setattr(host_attention, name, function)
    try:
        yield
    finally:
        for name, own in standing.items():
            setattr(host_attention, name, own)


@contextmanager
def padding_counted():
    """Has the host use the attention that the counter understands; yields the FLOPs on channels beyond `dim_head`."""
    padding = []

    def attention(q, k, v, heads, *args, transformer_options=None, **kwargs):
        length = q.shape[-1] // heads
        extra = length - (transformer_options or {}).get("dim_head", length)
        padding.append(4 * q.shape[0] * heads * q.shape[1] * k.shape[1] * extra)
        return host_attention.attention_pytorch(q, k, v, heads, *args, **kwargs)

    with attending_with(attention):
        yield padding


@dataclass(frozen=True)
class Costs:
    """The parts of the floor, all per row; indices of self-attentions in order of execution choose the blocks."""

    plain: int
    truncated: int  # up to the norm before the last chosen self-attention
    blocks: tuple  # (tokens, channels) of each

    def attention(self, mask=None):
        """Attention of the image's tokens to those that the mask keeps of one reference."""
        return sum(4 * tokens * _kept(mask, tokens) * channels for tokens, channels in self.blocks)

    def floor(self, references, mask=None, images=1, cached=False):
        """A step with CFG at style_fidelity 1: each reference once for all images, and their conditional rows' look."""
        once = 0 if cached else references * self.truncated
        return 2 * images * self.plain + once + images * references * self.attention(mask)


def costs(kind, size, blocks, width=320):
    """Costs of a UNet alone; nothing of the pack takes part. blocks: a range of indices."""
    plain, layers = _plain_run(kind, size, width)
    return Costs(plain, layers[blocks[-1]][2], tuple(layers[i][:2] for i in blocks))


@lru_cache(maxsize=8)
def _plain_run(kind, size, width):
    """FLOPs of one row, and (tokens, channels, FLOPs up to its norm) of each self-attention in order of execution."""
    unet = host_model(kind, width, device="meta").model.diffusion_model
    parts = (unet.input_blocks, unet.middle_block, unet.output_blocks)
    layers = [m for part in parts for m in part.modules() if isinstance(m, host_attention.BasicTransformerBlock)]
    seen = []
    meta = torch.device("meta")
    config = unet_config(kind, width)
    x = torch.zeros(1, 4, size // 8, size // 8, device=meta)
    context = torch.zeros(1, TEXT_TOKENS, config["context_dim"], device=meta)
    y = torch.zeros(1, config["adm_in_channels"], device=meta) if config["adm_in_channels"] else None
    with FlopCounterMode(display=False) as counter, padding_counted(), torch.inference_mode():

        def note(norm, inputs, n):
            seen.append((*n.shape[1:], counter.get_total_flops()))

        for layer in layers:
            layer.norm1.register_forward_hook(note)
        unet(x, torch.zeros(1, device=meta), context, y, None, {})
    return counter.get_total_flops(), seen


def _kept(mask, tokens):
    if mask is None:
        return tokens
    # square pictures only
    side = round(tokens**0.5)
    return int(F.interpolate(mask[None, None], size=(side, side), mode="nearest").sum())
