"""Names and shapes in IP-Adapter and MIP-Adapter files: one form for all layouts, every tensor checked."""

from ...kernels.face_projection import FaceSizes, face_shapes, face_sizes
from ...kernels.image_projection import projection_shapes, projection_sizes
from ...kernels.story_projection import StorySizes, story_shapes, story_sizes
from ..host.messages import input_error

# A raw training checkpoint names the adapter's parts otherwise, and holds the whole UNet beside them.
TRAINING = {"image_proj_model": "image_proj", "adapter_modules": "ip_adapter"}
LEFT_OUT = "unet"
# MIP-Adapter's text gate.
GATE = "text_to_weight"
PARTS = ("to_k_ip", "to_v_ip", GATE)
# Some files hold a LoRA for the UNet's own matrices beside them.
LORA, LORA_PARTS = "_lora.", ("to_q", "to_k", "to_v", "to_out")


def published_names(tensors):
    """{"image_proj..." or "ip_adapter...": tensor} of a file in any layout; other names stay as they are."""
    # parallel training puts a word before each name
    tensors = {key.removeprefix("module."): t for key, t in tensors.items()}
    training = any(key.startswith(tuple(f"{group}." for group in TRAINING)) for key in tensors)
    found = {}
    for key, t in tensors.items():
        group, dot, rest = key.partition(".")
        if not (training and group == LEFT_OUT):
            found[f"{TRAINING.get(group, group)}{dot}{rest}"] = t
    return found


def grouped(tensors, name):
    """The tensors of "image_proj" and of "ip_adapter", by their names below; ValueError if there are others."""
    groups = {"image_proj": {}, "ip_adapter": {}}
    for key, t in tensors.items():
        group, _, rest = key.partition(".")
        if group not in groups:
            raise no_adapter(name, f"{key} is unexpected")
        if not t.is_floating_point():
            raise no_adapter(name, f"{key} holds integers")
        groups[group][rest] = t.detach()
    return groups.values()


def checked_pairs(tensors, name):
    """[(to_k, to_v, gate or None)] of the pairs 1, 3, 5, ...: even numbers are self-attentions, which have none."""
    parts = PARTS if any(key.endswith(f".{GATE}.weight") for key in tensors) else PARTS[:2]
    odd = {key.split(".")[0] for key in tensors if key.split(".")[0][-1:] in tuple("13579")}
    numbers = range(1, 2 * max(1, len(odd)), 2)
    expected = {f"{number}.{part}.weight": (number, part) for number in numbers for part in parts}
    _check_names(set(expected), set(tensors), "ip_adapter", name)
    width = tensors["1.to_k_ip.weight"].shape[-1:]
    for key, (number, part) in expected.items():
        rows = tensors[f"{number}.to_k_ip.weight"].shape[:1]
        _check_shape(tensors[key], (1, *rows) if part == GATE else (*rows, *width), f"ip_adapter.{key}", name)
    return [[tensors.get(f"{number}.{part}.weight") for part in PARTS] for number in numbers]


def taken_apart_lora(tensors):
    """(the tensors without, the tensors of the LoRA) of "ip_adapter"."""
    lora = {key: t for key, t in tensors.items() if LORA in key}
    return {key: t for key, t in tensors.items() if key not in lora}, lora


def check_lora(tensors, pairs, name):
    """Raises ValueError unless a LoRA, where there is one, is whole: four matrices at all attentions, of one rank.

    pairs: the (C, D) of the cross-attentions in their order; each has a self-attention of width C before it.
    """
    if not tensors:
        return
    first = tensors.get("0.to_q_lora.down.weight")
    rank = len(first) if first is not None and first.ndim == 2 else 0
    expected = {}
    for number in range(2 * len(pairs)):
        rows, width = pairs[number // 2]
        for part in LORA_PARTS:
            read = width if number % 2 and part in ("to_k", "to_v") else rows
            expected[f"{number}.{part}{LORA}down.weight"] = (rank, read)
            expected[f"{number}.{part}{LORA}up.weight"] = (rows, rank)
    _check_names(set(expected), set(tensors), "ip_adapter", name)
    for key, shape in expected.items():
        _check_shape(tensors[key], shape, f"ip_adapter.{key}", name)


def checked_projection(tensors, width, name):
    """The ProjectionSizes, FaceSizes or StorySizes of a projection to tokens of this width.

    ValueError names a tensor that does not fit.
    """
    shapes = {key: tuple(t.shape) for key, t in tensors.items()}
    try:
        sizes = story_sizes(shapes, width) or face_sizes(shapes, width) or projection_sizes(shapes, width)
    except KeyError as error:
        raise no_adapter(name, f"image_proj.{error.args[0]} is missing") from error
    except ValueError as error:
        raise no_adapter(name, f"image_proj.{error}") from error
    if sizes is None:
        raise no_adapter(name, "it has no image_proj.proj.weight, image_proj.latents or image_proj.proj.3.weight")
    shapes_of = {FaceSizes: face_shapes, StorySizes: story_shapes}.get(type(sizes), projection_shapes)
    expected = shapes_of(sizes)
    _check_names(set(expected), set(shapes), "image_proj", name)
    for key, shape in expected.items():
        _check_shape(tensors[key], shape, f"image_proj.{key}", name)
    return sizes


def no_adapter(name, reason):
    """The exception for a file that is neither an adapter nor anything known."""
    return input_error(
        f"{name} is not an IP-Adapter or MIP-Adapter file: {reason}; choose one such as model_sdxl_plus.bin"
    )


def _check_names(expected, found, group, name):
    for keys, state in ((expected - found, "missing"), (found - expected, "unexpected")):
        if keys:
            raise no_adapter(name, f"{group}.{min(keys, key=_in_order)} is {state}")


def _check_shape(tensor, shape, key, name):
    # the shape that a pair must have is read from its first matrix, which may be no matrix at all
    if tuple(tensor.shape) != shape or 0 in shape or (key.startswith("ip_adapter.") and len(shape) != 2):
        raise no_adapter(name, f"{key} has the shape {list(tensor.shape)} instead of {list(shape)}")


def _in_order(key):
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in key.split(".")]
