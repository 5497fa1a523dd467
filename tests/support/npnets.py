"""NPNets to test with: the tiny golden one, and one of the published size from the recipe of its golden case."""

import json
import math
import zlib

import torch
from einops import rearrange
from safetensors.torch import save_file
from support.golden_data import GOLDEN, case

FOLDER = GOLDEN / "npnet"
TINY = FOLDER / "tiny_npnet.pth"


def tiny_contents():
    """The published container: nested dicts, alpha and beta with gradients."""
    return torch.load(TINY, map_location="cpu", weights_only=True)


def tiny_weights():
    """{published name: tensor}."""
    flat = {}
    for group, value in tiny_contents().items():
        tensors = value.items() if isinstance(value, dict) else ()
        flat |= {f"{group}.{key}": t for key, t in tensors} if tensors else {group: value.detach()}
    return flat


def numbers(key, count):
    """u_1 ... u_count in (-1, 1), the same on every machine: the recipe's random numbers for a tensor's name."""
    j = torch.arange(1, count + 1, dtype=torch.float64)
    x = 43758.5453123 * torch.sin(0.7390851332 * j + 1000 * zlib.crc32(key.encode()) / 2**32)
    return 2 * (x - x.floor()) - 1


def recipe_tensor(key, shape):
    count = math.prod(shape)
    fixed = {"alpha": 0.6, "beta": 0.35, "running_var": 1.0, "running_mean": 0.0, "num_batches_tracked": 0.0}
    if key.split(".")[-1] in fixed:
        return torch.full(shape, fixed[key.split(".")[-1]])
    u = numbers(key, count)
    if key.endswith("relative_position_bias_table"):
        u = 0.5 * u
    elif key == "embeeding.linear.weight":
        u = 0.3 * math.sqrt(3 / shape[1]) * u
    elif len(shape) == 1:
        u = 1 + 0.1 * u if key.endswith(".weight") else 0.05 * u
    else:
        u = math.sqrt(3 * shape[0] / count) * u
    return u.reshape(shape).float()


def recipe_weights():
    """The full-size network of the golden case `full_size_recipe`, all 203 tensors of a published file."""
    published = json.loads((FOLDER / "published_keys.json").read_text(encoding="utf-8"))["tensors"]
    return {key: recipe_tensor(key, tuple(shape)) for key, (shape, _) in published.items()}


def save_recipe(path):
    """Writes that network as a published safetensors copy, for servers to load (122 MB)."""
    save_file({key: t.contiguous() for key, t in recipe_weights().items()}, path)


def recipe_prompt(width=2048):
    return (math.sqrt(3) * numbers("prompt_embeds", 77 * width)).reshape(1, 77, width).float()


def recipe_in_double(noise):
    """{"golden", "residual"} of the full-size network in float64, with the signs that float32 finds.

    What a float32 result is held to. Two of them may lie on both sides of it, so twice as far apart, since each machine
    adds up in an order of its own: the recorded golden noise is 1.2e-4 from here at worst, others are 1.3e-4.
    """
    from pack.kernels.noise_prompt import network

    noise, prompt = noise.double(), recipe_prompt().double()
    weights = {key: weight.double() for key, weight in recipe_weights().items()}
    square = rearrange(noise, "b (a c) h w -> b (a h) (c w)", a=2, c=2)
    u, s, vh = torch.linalg.svd(square)
    # the network depends on the signs of the singular vectors
    signs = (u * network.singular_vectors(noise)[0]).sum(1).sign()
    u, vh = u * signs[:, None, :], vh * signs[:, :, None]
    svd = u @ torch.diag_embed(network.spectrum(u, s, vh, weights)) @ vh
    svd = rearrange(svd, "b (a h) (c w) -> b (a c) h w", a=2, c=2)
    text = network.text_branch(noise, prompt, weights)
    residual = network.residual_branch(noise + text, weights)
    golden = svd + (2 * weights["alpha"].sigmoid() - 1) * text + weights["beta"] * residual
    return {"golden": golden, "residual": residual}


def golden_case(name):
    return case(f"npnet/{name}")


def small_weights(side=8, prompt=32):
    """A network for latents of 8 x 8 and prompts 32 wide, as the tiny UNet has them; its changes are mild."""
    from pack.kernels.noise_prompt import NPNetSizes, npnet_shapes

    sizes = NPNetSizes(side, prompt, width=6, depths=(1, 2, 1, 1), heads=(1, 2, 3, 6), vectors=16, values=32)
    return {key: recipe_tensor(key, shape) for key, shape in npnet_shapes(sizes).items()}
