"""Picture sizes for a family of checkpoints, and how strongly ResAdapter should act at one."""

import math

import comfy.model_management
import torch

from ..host.choices import check_listed
from ..host.families import MULTIPLE, native_side
from ..host.latents import LATENT_STEP
from ..host.messages import plain, warn_user
from .adapter_sets import read_set
from .published_sets import PUBLISHED_SETS
from .set_fit import check_family, check_model

ASPECTS = ("1:1", "4:3", "3:4", "3:2", "2:3", "16:9", "9:16", "21:9", "custom")
NONE = "none"
# Of an unknown set: what the authors' general sets reach.
GENERAL = {"SD1.5": "resadapter_v2_sd1.5", "SDXL": "resadapter_v2_sdxl"}
# After the authors' advice: full below the native size, 0.3 to 0.7 above, at most 0.5 to 0.7 beside acceleration LoRAs.
WITH_ACCELERATION = 0.6
# How far from the native side a model draws well by itself.
ALONE = 1.25


def sized(model, choice, *, aspect, megapixels, width, height):
    """(width, height, the suggested alpha, a warning or "") for a MODEL and a set of the model folder or "none"."""
    check_listed("aspect", aspect, ASPECTS)
    family = check_model(model, "ResAdapter Resolution")
    multiple = MULTIPLE[family]
    if aspect != "custom":
        width, height = _of_area(aspect, megapixels)
    rounded = tuple(max(multiple, int(side / multiple + 0.5) * multiple) for side in (width, height))
    warnings = []
    if aspect == "custom" and rounded != (width, height):
        warnings.append(
            f"{width} x {height} became {rounded[0]} x {rounded[1]}: {family} needs multiples of {multiple}"
        )
    if choice == NONE:
        warnings += _without(model, family, *rounded)
    else:
        adapter = read_set(choice)
        check_family(adapter, model)
        warnings += _outside(PUBLISHED_SETS[adapter.like or GENERAL[family]], choice, *rounded)
    if warnings:
        warn_user(f"ResAdapter Resolution: {'; '.join(warnings)}")
    return *rounded, suggested_alpha(model, *rounded), plain("; ".join(warnings))


def empty_latent(width, height, batch_size):
    """The host's empty LATENT of a size in pixels."""
    device = comfy.model_management.intermediate_device()
    return {"samples": torch.zeros(batch_size, 4, height // LATENT_STEP, width // LATENT_STEP, device=device)}


def suggested_alpha(model, width, height):
    """ResAdapter's alpha for a size: the further above the native size, the less."""
    side, native = math.sqrt(width * height), native_side(model)
    alpha = 1.0 if side <= native else 0.7 if side <= 1.25 * native else 0.5
    return min(alpha, WITH_ACCELERATION) if _samples_by_lcm(model) else alpha


def _of_area(aspect, megapixels):
    across, down = (int(part) for part in aspect.split(":"))
    # as the host counts them
    pixels = megapixels * 1024 * 1024
    return math.sqrt(pixels * across / down), math.sqrt(pixels * down / across)


def _samples_by_lcm(model):
    # the host's ModelSamplingDiscrete makes its class anew each time, so only the name tells
    sampling = model.get_model_object("model_sampling")
    return any(kind.__name__ == "LCM" for kind in type(sampling).__mro__)


def _without(model, family, width, height):
    side, native = math.sqrt(width * height), native_side(model)
    if not native / ALONE <= side <= native * ALONE:
        yield f"without a ResAdapter {family} works well only near {native} x {native}"


def _outside(known, choice, width, height):
    side, ratio = math.sqrt(width * height), width / height
    if not known.sides[0] <= side <= known.sides[1]:
        yield (
            f"{width} x {height} has a mean side of {side:.0f}, {choice} is made for {known.sides[0]} to "
            f"{known.sides[1]}"
        )
    if not known.ratios[0] <= ratio <= known.ratios[1]:
        yield f"{width} : {height} is {ratio:.2f}, {choice} is made for {known.ratios[0]:g} to {known.ratios[1]:g}"
