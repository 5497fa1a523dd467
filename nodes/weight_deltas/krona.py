"""KronA: joins a MODEL as weight patches, which hooks, Concept Conductor and merges see as any LoRA."""

from statistics import median

from ..files.lora_names import UNET_PREFIX
from ..host.bare_unet import on_bare_unet
from ..host.blocks import unet_of
from ..host.weight_patching import keys_by_diffusers, with_weight_patches
from ..row_adapters.krona_adapter import KronAAdapter
from .krona_file import read_krona


@on_bare_unet
def attach_krona(model, choice, strength=1.0):
    """(the MODEL with a KronA file of the loras folder, a report). Raises ValueError for a file that does not fit."""
    unet = unet_of(model, "KronA")
    names = layers_by_name(model, unet)
    shapes = {name: _shape(unet, key) for name, key in names.items()}
    factors, file = read_krona(choice, {name: shape for name, shape in shapes.items() if shape})
    patches = {
        UNET_PREFIX + names[name]: KronAAdapter({f"{name}.down", f"{name}.up"}, pair) for name, pair in factors.items()
    }
    patched = with_weight_patches(model, patches, strength) if strength else model.clone()
    numbers = sum(t.numel() for pair in factors.values() for t in pair)
    rank = median(min(down.shape[0] * min(up.shape), min(down.shape) * up.shape[1]) for down, up in factors.values())
    report = (
        f"{file}: KronA for {len(factors)} layers, {numbers:,} numbers; as a LoRA it would be of rank {rank:g}. "
        f"Strength {strength:g}."
    )
    return patched, report


def layers_by_name(model, unet):
    """{diffusers name of a layer: the host's key of its weight, without what stands before the UNet's}."""
    known = unet.state_dict().keys()
    return {
        name.removesuffix(".weight"): key
        for name, key in keys_by_diffusers(model.model).items()
        if name.endswith(".weight") and key in known
    }


def _shape(unet, key):
    layer = unet.get_submodule(key.removesuffix(".weight"))
    return (layer.out_features, layer.in_features) if hasattr(layer, "in_features") else None
