"""The names of ComfyUI's insides, in one place: what the options of a call of its UNet hold, and how to call it."""

from uuid import uuid4

import torch
from comfy.patcher_extension import WrappersMP

# Where torch.compile keeps the module that it has wrapped.
_ORIGINAL = "_orig_mod"


def heads_of(options):
    """The number of heads of the attention that is called with these options."""
    return options["n_heads"]


def grid_of(options):
    """(h, w) of the image's tokens at the block that is called with these options."""
    return tuple(options["activations_shape"][-2:])


def latent_size_of(options):
    """(h, w) of the latents that the whole call of the UNet is about."""
    return tuple(options["original_shape"][-2:])


def block_of(options):
    """The host key (name, number, index) of the attention that is called with these options."""
    return (*options["block"], options["block_index"])


def module_of(options):
    """(name, number) of the UNet's block that is called with these options."""
    return options["block"]


def sigmas_of(options):
    """The noise level of a call, a tensor of equal ones that Run.level reads; None where nobody samples and some node
    looks at the bare UNet.
    """
    return options.get("sigmas")


def schedule_of(options):
    """The sampler's noise levels as a list, None outside a sampler."""
    return options["sample_sigmas"].tolist() if "sample_sigmas" in options else None


def window_of(options):
    """(dimension, indices) of the part of the latents that the host's context windows run, None without them."""
    window = options.get("context_window")
    if window is None:
        return None
    # newer hosts put the frame before a window ahead of it, and take it away afterwards
    anchor = getattr(window, "causal_anchor_index", None)
    return window.dim, [*([anchor] if anchor is not None and anchor >= 0 else []), *window.index_list]


def frames_of_motion(options):
    """The numbers of the frames that AnimateDiff runs, () where it runs all or is not there."""
    return (options.get("ad_params") or {}).get("sub_idxs") or ()


def sides_of(options):
    """([0 for a conditional or 1 for an unconditional one, ...], [uuid or None, ...]) of a batch's conditionings."""
    order = options.get("cond_or_uncond") or [0]
    return order, options.get("uuids") or [None] * len(order)


def with_sides(options, sides):
    """The options with other sides of a batch's conditionings; as they are where they list another number of them."""
    same = len(options.get("cond_or_uncond") or ()) == len(sides)
    return {**options, "cond_or_uncond": sides} if same else options


def coupled_sides_of(options):
    """As the first of `sides_of`, of a node that couples prompts to parts of the picture; () where none does."""
    return options.get("cond_or_uncond_couple") or ()


def repeated_sides(options, times):
    """The options for `times` groups of the call's rows, one behind the other."""
    names = ("cond_or_uncond", "uuids")
    return {**options, **{name: list(options[name]) * times for name in names if name in options}}


def without_patches(options):
    """Of the options, what says where in a run a call is and which sides its rows are of; nobody's patches."""
    names = ("sigmas", "sample_sigmas", "cond_or_uncond", "uuids")
    return {"wrappers": {}, "callbacks": {}, **{name: options[name] for name in names if name in options}}


def clean_options(sigma, device=None, texts=1, rows=1, schedule=None):
    """Options of a call of ours at a noise level, a number: all that the host gives every call, nobody's patches.

    texts: how many there are, with `rows` rows of each; schedule: the sampler's noise levels as a list, if one samples.
    """
    given = {
        "sigmas": torch.full((rows,), sigma, device=device),
        "sample_sigmas": torch.tensor(schedule or [sigma, 0.0], device=device),
        "cond_or_uncond": [0] * texts,
        "uuids": [uuid4() for _ in range(texts)],
    }
    return without_patches(given)


def rows_together(patcher, rows):
    """How many rows of one picture a call of ours needs where a chunk of the sampler's has `rows`.

    Modules that other packs have put into the UNet (motion modules) may look along the rows of a chunk.
    """
    return rows if patcher is not None and patcher.injections else 1


def with_attention_override(options, function):
    """The options with another attention function for the whole call, as function(inner, q, k, v, heads, ...)."""
    return {**options, "optimized_attention_override": function}


def attention_overridden(options):
    """Whether another function stands for the host's attention in the call of these options."""
    return options.get("optimized_attention_override") is not None


def patched_by_others(options):
    """Whether other nodes have put anything into the UNet for this call; it is made for the call's own rows."""
    return any(options.get(name) for name in ("patches", "patches_replace", "optimized_attention_override"))


def with_replacements(options, replacing):
    """The options with attentions replaced: {("attn1" or "attn2", host key): make(what stands there, or None)}."""
    replace = {kind: dict(standing) for kind, standing in options.get("patches_replace", {}).items()}
    for (kind, block), make in replacing.items():
        standing = replace.setdefault(kind, {})
        # the host looks for the full key first, then for the one that names a whole block
        standing[block] = make(standing.get(block, standing.get(block[:2])))
    return {**options, "patches_replace": replace}


def with_patches(options, patches, first=False):
    """The options with {slot: patch} behind the patches that stand in the host's slots, or before them."""
    if not patches:
        return options
    standing = dict(options.get("patches", {}))
    for slot, patch in patches.items():
        there = standing.get(slot, [])
        standing[slot] = [patch, *there] if first else [*there, patch]
    return {**options, "patches": standing}


def as_written(module):
    """A module out of what torch.compile may have put around it."""
    return module._modules.get(_ORIGINAL, module)


def live_unet(base):
    """The UNet of the host's BaseModel as it stands now."""
    return as_written(base.diffusion_model)


def plain_name(name):
    """The name of a module or a weight, free of what torch.compile has put in between."""
    return name.replace(f"{_ORIGINAL}.", "")


def forward_of(unet):
    """A UNet of the host without any wrapper: (x, timesteps, context, y, control, options) -> eps."""
    return unet._forward


def bare_forward(base):
    """The same of the UNet of the host's BaseModel."""
    return forward_of(live_unet(base))


def channels_of(base):
    """Of how many channels the UNet of the host's BaseModel takes its input now; other packs patch further ones in."""
    return live_unet(base).input_blocks[0][0].weight.shape[1]


def runs_compiled(patcher):
    """Whether some node has put torch.compile on a MODEL: by the host's wrapper, by a patch, or in place."""
    # the host's own name of both
    if "torch_compile_kwargs" in patcher.model_options or patcher.get_wrappers(WrappersMP.APPLY_MODEL, "torch.compile"):
        return True
    modules = [patcher.model, *patcher.object_patches.values()]
    inside = (one for module in modules if isinstance(module, torch.nn.Module) for one in module.modules())
    return any(_ORIGINAL in one._modules or one._compiled_call_impl is not None for one in inside)


def noise_levels(sampling):
    """The ascending noise levels (sigmas) of a model sampling object of the host, None where it has no such table."""
    return getattr(sampling, "sigmas", None)


def seed_of_run(args, kwargs):
    """The seed of a sampling run, from what an OUTER_SAMPLE wrapper gets behind the sigmas; None if there is none."""
    # denoise_mask, callback, disable_pbar, seed
    return args[3] if len(args) > 3 else kwargs.get("seed")
