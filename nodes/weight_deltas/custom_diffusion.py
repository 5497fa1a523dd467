"""Custom Diffusion (arXiv 2212.04488) and DisenDiff (arXiv 2403.18551): trained keys and values as weight patches.

W + strength * (W of the file - W of the checkpoint), so that it adds to LoRAs in any order.
"""

from statistics import median

import comfy.lora

from ..files.lora_names import UNET_PREFIX
from ..host.bare_unet import on_bare_unet
from ..host.blocks import unet_of
from ..host.clip_text import check_clip
from ..host.families import family_of
from ..host.messages import input_error, warn_user
from ..host.packed_weights import check_unpackable, unpacked
from ..host.weight_patching import fine, keys_by_diffusers, with_weight_patches
from ..text_contexts.concept_words import Word
from ..text_contexts.taught_clip import check_entered, placed, taught_clip
from .custom_diffusion_file import read_custom_diffusion

# Changes beyond this share of the weights are more than a concept.
_LARGE = 0.3


@on_bare_unet
def attach_custom_diffusion(model, clip, choice, *, strength=1.0, words="", trained_on=None):
    """(the MODEL with the weights of a Custom Diffusion file, the CLIP with its words, these words).

    words: other names for them, in order; trained_on: the MODEL that the file was trained on, where that is another
    checkpoint. Raises ValueError for files that do not fit.
    """
    unet = unet_of(model, "Custom Diffusion")
    if trained_on is not None:
        _check_same_family(model, trained_on)
    shapes = {key: tuple(weight.shape) for key, weight in unet.named_parameters()}
    file = read_custom_diffusion(choice, keys_by_diffusers(model.model), shapes)
    names = _renamed(file, words)
    if names:
        check_clip(clip)
    taught = [
        Word(name, {e: rows[:, None, None] for e, rows in placed(clip, vectors, name, file.name).items()})
        for name, vectors in zip(names, file.words.values(), strict=True)
    ]
    patched = model.clone()
    if strength:
        patches, shares = _patches(file, trained_on or model)
        _say(file, shares, trained_on)
        patched = with_weight_patches(model, patches, strength)
    return patched, taught_clip(clip, taught, file.name) if taught else clip, " ".join(names)


def _check_same_family(model, trained_on):
    unet_of(trained_on, "Custom Diffusion")
    mine, other = family_of(model), family_of(trained_on)
    if mine != other:
        raise input_error(
            f"trained_on is {other} and model is {mine}; connect the {mine} checkpoint that the file was trained on, "
            "or none"
        )


def _renamed(file, words):
    check_entered(words, file.name)
    names = words.split()
    if names and len(names) != len(file.words):
        raise input_error(
            f"{file.name} has {len(file.words)} words ({', '.join(file.words)}), words has {len(names)} names; enter "
            "as many, in this order"
        )
    return names or list(file.words)


def _patches(file, base):
    """({the host's key: patch}, how large each change is as a share of the weight) beside the weights of a MODEL."""
    unet = unet_of(base, "Custom Diffusion")
    check_unpackable([unet.get_submodule(key.rpartition(".")[0]) for key in file.weights], "Custom Diffusion")
    standing = base.get_key_patches(UNET_PREFIX)
    patches, shares = {}, []
    for key, value in file.weights.items():
        name, _, kind = key.rpartition(".")
        whole = UNET_PREFIX + key
        # the checkpoint's own, whatever is loaded or patched at the moment
        weight = unpacked(unet.get_submodule(name), kind, standing[whole][0][0]).float().cpu()
        if isinstance(value, tuple):
            u, v = value
            pair = {"delta.lora_up.weight": u, "delta.lora_down.weight": v}
            patches |= comfy.lora.load_lora(pair, {"delta": whole})
            change = u.float() @ v.float()
        else:
            change = value.float() - weight
            if not change.any():
                # DisenDiff writes what it has not trained
                continue
            patches[whole] = ("diff", (change.to(fine(standing[whole][0][0].dtype)),))
        shares.append(float(change.norm() / weight.norm().clamp(min=1e-12)))
    return patches, shares


def _say(file, shares, trained_on):
    share = median(shares) if shares else 0.0
    hint = ""
    if share > _LARGE and trained_on is None:
        hint = "; that is a lot: if the file was trained on another checkpoint, connect that one to trained_on"
    warn_user(f"{file.name} changes {len(shares)} matrices, by {100 * share:.0f} % of their norm (median){hint}")
