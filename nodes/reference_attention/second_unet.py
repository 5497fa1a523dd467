"""References that another UNet reads: one of the same shape that was trained to (BootPIG, arXiv 2401.13974).

What it makes of them ahead of each self-attention, the model's own layers turn to keys and values.
"""

from functools import partial

from ..host.blocks import attention_blocks, cross_attention, self_attention, unet_of
from ..host.calls import bare_forward, block_of, channels_of, clean_options, grid_of, live_unet, with_patches
from ..host.devices import own_of, related
from ..host.families import family_of
from ..host.messages import input_error, warn_user
from ..host.partial_pass import PassEnded, may_end_early
from ..host.text_rows import text_batch
from ..host.unet_inputs import compute_dtype
from .reference_pass import in_turns, kept_on

# The published code multiplies what keys are made of by this.
KEY_SCALE = 1.1


def second_unet(model, reference_model):
    """The MODEL whose UNet reads the references, None where it is the model itself.

    Raises ValueError for one of another shape.
    """
    if reference_model is None:
        return None
    if related(reference_model, model):
        if reference_model.patches_uuid != model.patches_uuid:
            warn_user(
                "reference_model is the model's own checkpoint with other patches, which cannot be loaded beside it: "
                "the references are read by the model as it is"
            )
        return None
    own, other = (unet_of(one, "reference_model") for one in (model, reference_model))
    channels = [channels_of(one.model) for one in (model, reference_model)]
    if channels[0] != channels[1]:
        raise input_error(
            f"reference_model takes {channels[1]} channels, as those for inpainting do, the model {channels[0]}; "
            "connect a UNet of the same shape"
        )
    if _shape(own) != _shape(other):
        names = family_of(reference_model), family_of(model)
        said = f"{names[0]}, the model {names[1]}" if names[0] != names[1] else f"a {names[0]} of another size"
        raise input_error(f"reference_model is {said}; connect a UNet of the same shape")
    return reference_model


def caught_by_other(other, call, x, texts, wanted, rows):
    """As `reference_pass.caught`, of the UNet of another MODEL; a film needs no more than one row of each."""
    return in_turns(partial(_one_pass, other), call, x, texts, wanted, rows)


def _one_pass(other, call, x, texts, wanted, rows):
    unet, found = live_unet(call.base), []
    for hidden in _hidden(other, call, x, texts, wanted, rows):
        entry = {}
        for block, (seen, grid) in hidden.items():
            attention = self_attention(unet, block)
            entry[block] = attention.to_k(KEY_SCALE * seen), attention.to_v(seen), grid
        found.append(entry)
    return found


def _hidden(other, call, x, texts, wanted, rows):
    """Per reference {block: (normed features (m, c) of the kept tokens, (h, w))}."""
    base = own_of(call.base.current_patcher, other).model
    batch = text_batch(texts, attention_blocks(live_unet(base)))
    found, index_of = [{} for _ in rows], kept_on(rows, x.device)

    def catch(n, context, value, options):
        block, grid = block_of(options), grid_of(options)
        if block in wanted.blocks:
            for row, features in enumerate(n):
                found[row][block] = features.index_select(0, index_of(row, grid)).to(x.dtype), grid
            if block == wanted.last:
                raise PassEnded
        return n, context, value

    options = clean_options(call.moment.sigma, x.device, len(rows), 1, call.run.schedule({}))
    options = with_patches(batch.read_by(options, call.whole_timestep), {"attn1_patch": catch})
    dtype = compute_dtype(base)
    context, y = (None if t is None else t.to(dtype) for t in (batch.context, batch.y))
    with may_end_early():
        bare_forward(base)(x.to(dtype), call.timesteps[:1].expand(len(rows)), context, y, None, options)
    return found


def _shape(unet):
    """What two UNets have in common where one can read for the other."""
    attentions = {}
    for block in attention_blocks(unet):
        own = self_attention(unet, block)
        attentions[block] = own.heads, own.dim_head, cross_attention(unet, block).to_k.in_features
    return attentions
