"""IP-Adapter and MIP-Adapter files: published pickles, safetensors, training checkpoints; told by keys and shapes."""

from dataclasses import dataclass

import torch

from ...kernels.image_projection import Sizes, expected_shapes, image_tokens, sizes_of
from .image_adapter_others import refuse_others
from .model_files import path_of, register
from .safe_files import read_tensors
from .say import refusal

KINDS = ("ipadapter",)
# What the variants take from the vision encoder, and the towers that give it, by its width.
OUTPUTS = {"base": "image_embeds", "plus": "penultimate_hidden_states", "full-face": "penultimate_hidden_states"}
TOWERS = {
    "image_embeds": {768: "ViT-L", 1024: "ViT-H", 1280: "ViT-bigG"},
    "penultimate_hidden_states": {768: "ViT-B", 1024: "ViT-L", 1152: "SigLIP", 1280: "ViT-H", 1664: "ViT-bigG"},
}
FAMILIES = {768: "SD1.5", 1024: "SD2.x", 1280: "the SDXL refiner", 2048: "SDXL"}
# A raw training checkpoint holds the whole UNet beside the adapter, and names the adapter's parts otherwise.
TRAINING = {"image_proj_model": "image_proj", "adapter_modules": "ip_adapter"}
LEFT_OUT = "unet"
GATE = "text_to_weight"

register(*KINDS)


@dataclass(frozen=True)
class Embed:
    """What an adapter takes from a vision encoder: the output's name, its width, and the tower that gives it."""

    output: str
    width: int

    @property
    def tower(self):
        return tower_of(self.output, self.width)


@dataclass(frozen=True, eq=False)
class Pair:
    """The matrices of one cross-attention, as stored."""

    to_k: torch.Tensor  # (C, D)
    to_v: torch.Tensor  # (C, D)
    gate: torch.Tensor | None  # (1, C): MIP-Adapter's text gate


@dataclass(frozen=True, eq=False)
class Projection:
    """The weights that make image tokens, by their published names, as stored."""

    sizes: Sizes
    weights: dict


@dataclass(frozen=True, eq=False)
class ImageAdapter:
    """One adapter on the CPU. `pairs` are in the order of the file: see `image_adapter_fit.check_fits`."""

    name: str
    variant: str  # "base", "plus" or "full-face"
    tokens: int  # T, of one picture
    width: int  # D, of the model's context
    embed: Embed
    projection: Projection
    pairs: tuple

    @property
    def gated(self):
        """Whether the file holds MIP-Adapter's text gate."""
        return self.pairs[0].gate is not None

    @property
    def family(self):
        return family_of_width(self.width)

    def project(self, embeds):
        """Image tokens (m, T, D) float32 of the encoder's output for m pictures: (m, E), or (m, t, E) hidden states."""
        return image_tokens(embeds, self.projection.weights, self.projection.sizes)


def read_image_adapter(name):
    """The ImageAdapter of a file in the folders; ValueError says what is wrong with it, or what it is instead."""
    return adapter_from(read_tensors(path_of(name, *KINDS))[0], name)


def adapter_from(tensors, name):
    """The ImageAdapter of {"group.key": tensor}; all tensors fit, or ValueError names the first that does not."""
    found = dict(_published_names(tensors))
    refuse_others({key: tuple(t.shape) for key, t in found.items()}, name)
    groups = {"image_proj": {}, "ip_adapter": {}}
    for key, t in found.items():
        group, _, rest = key.partition(".")
        if group not in groups:
            raise _no_adapter(name, f"{key} is unexpected")
        if not t.is_floating_point():
            raise _no_adapter(name, f"{key} holds whole numbers")
        groups[group][rest] = t.detach()
    pairs = _pairs(groups["ip_adapter"], name)
    projection = _projection(groups["image_proj"], pairs[0].to_k.shape[1], name)
    sizes = projection.sizes
    embed = Embed(OUTPUTS[sizes.variant], sizes.embed)
    return ImageAdapter(name, sizes.variant, sizes.tokens, sizes.width, embed, projection, pairs)


def tower_of(output, width):
    """The name of the vision tower that gives this output this wide."""
    return TOWERS[output].get(width, "another tower")


def family_of_width(width):
    """The family of checkpoints whose context is this wide, in words."""
    return f"{FAMILIES[width]} (context {width})" if width in FAMILIES else f"a model of context {width}"


def _published_names(tensors):
    # parallel training puts a word before each name
    tensors = {key.removeprefix("module."): t for key, t in tensors.items()}
    training = any(key.startswith(tuple(f"{group}." for group in TRAINING)) for key in tensors)
    for key, t in tensors.items():
        group, dot, rest = key.partition(".")
        if not (training and group == LEFT_OUT):
            yield f"{TRAINING.get(group, group)}{dot}{rest}", t


def _pairs(tensors, name):
    """The pairs 1, 3, 5, ...: even numbers are self-attentions, which have none."""
    gated = any(key.endswith(f".{GATE}.weight") for key in tensors)
    parts = ("to_k_ip", "to_v_ip", GATE) if gated else ("to_k_ip", "to_v_ip")
    odd = {key.split(".")[0] for key in tensors if key.split(".")[0][-1:] in tuple("13579")}
    numbers = range(1, 2 * max(1, len(odd)), 2)
    expected = {f"{number}.{part}.weight": (number, part) for number in numbers for part in parts}
    _check_names(set(expected), set(tensors), "ip_adapter", name)
    for key, (number, part) in expected.items():
        first, mine = tensors["1.to_k_ip.weight"].shape[-1:], tensors[f"{number}.to_k_ip.weight"].shape[:1]
        shape = (1, *mine) if part == GATE else (*mine, *first)
        if len(shape) != 2 or tuple(tensors[key].shape) != shape:
            raise _wrong_shape(name, f"ip_adapter.{key}", tensors[key], shape)
    return tuple(
        Pair(*(tensors.get(f"{number}.{part}.weight") for part in ("to_k_ip", "to_v_ip", GATE))) for number in numbers
    )


def _check_names(expected, found, group, name):
    for keys, state in ((expected - found, "missing"), (found - expected, "unexpected")):
        if keys:
            raise _no_adapter(name, f"{group}.{min(keys, key=_in_order)} is {state}")


def _in_order(key):
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in key.split(".")]


def _projection(tensors, width, name):
    shapes = {key: tuple(t.shape) for key, t in tensors.items()}
    try:
        sizes = sizes_of(shapes, width)
    except KeyError as error:
        raise _no_adapter(name, f"image_proj.{error.args[0]} is missing") from error
    except ValueError as error:
        raise _no_adapter(name, f"image_proj.{error}") from error
    if sizes is None:
        raise _no_adapter(name, "it holds no image_proj.proj.weight, image_proj.latents or image_proj.proj.3.weight")
    expected = expected_shapes(sizes)
    _check_names(set(expected), set(shapes), "image_proj", name)
    for key, shape in expected.items():
        if shapes[key] != shape:
            raise _wrong_shape(name, f"image_proj.{key}", tensors[key], shape)
    return Projection(sizes, tensors)


def _wrong_shape(name, key, tensor, shape):
    return _no_adapter(name, f"{key} has the shape {list(tensor.shape)} instead of {list(shape)}")


def _no_adapter(name, reason):
    return refusal(f"{name} is not an IP-Adapter or MIP-Adapter file: {reason}; choose one such as model_sdxl_plus.bin")
