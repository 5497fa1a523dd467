"""Patches of other packs: the host's own nodes, and the ways in which known packs use the host's slots."""

import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.patcher_extension import WrappersMP
from comfy.sd import load_lora_for_models
from comfy_extras import nodes_attention_multiply as multiply
from comfy_extras import nodes_freelunch, nodes_hypertile, nodes_model_downscale, nodes_pag, nodes_sag, nodes_tomesd
from composition.scene import random


def by_node(node, *values):
    """The patch that a node of the host puts in: V3 with one kind of output or the other, or V1."""

    def attach(model):
        result = node.execute(model, *values) if hasattr(node, "execute") else node().patch(model, *values)
        return getattr(result, "result", result)[0]

    return attach


def by_setter(name, *args):
    """The patch that one of the MODEL's setters puts in."""

    def attach(model):
        patched = model.clone()
        getattr(patched, name)(*args)
        return patched

    return attach


def both(*several):
    def attach(model):
        for one in several:
            model = one(model)
        return model

    return attach


def attention(q, k, v, options):
    return optimized_attention(q, k, v, options["n_heads"], transformer_options=options)


def squashed(q, k, v, options):
    """A callable at a self-attention: neither plain nor near it."""
    return 1.5 * torch.tanh(attention(q, k, v, options)) + 0.2 * q


def longer(n, context, value, options):
    """Further tokens that every row may look at, as reference and style packs add them."""
    tokens = random(1, 5, n.shape[-1], seed=31).expand(n.shape[0], -1, -1)
    return n, torch.cat([context, tokens], 1), torch.cat([value, tokens], 1)


def coupled(second):
    """Attention couple: the positive's rows run twice in attn2, with two texts, and are joined by halves."""

    def enlarge(n, context, value, options):
        rows = n.shape[0] // len(options["cond_or_uncond"])
        parts = []
        for i, index in enumerate(options["cond_or_uncond"]):
            own, texts = n[i * rows : (i + 1) * rows], context[i * rows : (i + 1) * rows]
            parts += [(own, texts)] if index else [(own, texts), (own, second.expand_as(texts))]
        n, context = (torch.cat(some) for some in zip(*parts))
        return n, context, context

    def join(n, options):
        rows = n.shape[0] // sum(1 if index else 2 for index in options["cond_or_uncond"])
        out, at = [], 0
        for index in options["cond_or_uncond"]:
            if index:
                out.append(n[at : at + rows])
            else:
                left = torch.arange(n.shape[1])[:, None] % 2 == 0
                out.append(torch.where(left, n[at : at + rows], n[at + rows : at + 2 * rows]))
            at += rows if index else 2 * rows
        return torch.cat(out)

    return both(by_setter("set_model_attn2_patch", enlarge), by_setter("set_model_attn2_output_patch", join))


def override(function):
    def attach(model):
        patched = model.clone()
        patched.model_options["transformer_options"]["optimized_attention_override"] = function
        return patched

    return attach


def late(function, block):
    """A wrapper that puts a callable at a block only when the UNet is called, as this pack does."""

    def wrapper(executor, x, t, context, y, control, options, **more):
        replace = {kind: dict(standing) for kind, standing in options.get("patches_replace", {}).items()}
        replace.setdefault("attn1", {})[block] = function
        return executor(x, t, context, y, control, {**options, "patches_replace": replace}, **more)

    return by_setter("add_wrapper_with_key", WrappersMP.DIFFUSION_MODEL, "a later pack", wrapper)


def mirrored(executor, x, *args, **more):
    """A wrapper that runs the UNet twice per call, with the very same options."""
    return (executor(x, *args, **more) + executor(x.flip(-1), *args, **more).flip(-1)) / 2


def lora_file(model, seed=0, rank=2):
    """A LoRA as files hold it, on every attention projection of the UNet."""
    state = {}
    for i, (key, weight) in enumerate(sorted(model.model.diffusion_model.state_dict().items())):
        if key.endswith(("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight")):
            name = "lora_unet_" + key.removesuffix(".weight").replace(".", "_")
            state[f"{name}.lora_up.weight"] = (
                random(weight.shape[0], rank, seed=1000 * seed + i) * weight.shape[0] ** -0.5
            )
            state[f"{name}.lora_down.weight"] = random(rank, weight.shape[1], seed=1000 * seed + i + 500) * 0.7
            state[f"{name}.alpha"] = torch.tensor(float(rank))
    return state


def lora(model):
    return load_lora_for_models(model, None, lora_file(model), 0.2, 0.0)[0]


PAG = by_node(nodes_pag.PerturbedAttentionGuidance, 10.0)
SAG = by_node(nodes_sag.SelfAttentionGuidance, 0.5, 2.0)
FREEU = by_node(nodes_freelunch.FreeU, 1.3, 1.4, 0.9, 0.2)
FREEU_V2 = by_node(nodes_freelunch.FreeU_V2, 1.3, 1.4, 0.9, 0.2)
# tiles of 4 x 4 latent pixels on the first two levels of a picture of 16 x 16: 16 and 4 tiles
HYPERTILE = by_node(nodes_hypertile.HyperTile, 32, 1, 1, False)
# half the size inside the UNet, from input block 1 on
DOWNSCALE = by_node(nodes_model_downscale.PatchModelAddDownscale, 1, 2.0, 0.0, 1.0, True, "bicubic", "bicubic")
TOME = by_node(nodes_tomesd.TomePatchModel, 0.4)
SELF_MULTIPLY = by_node(multiply.UNetSelfAttentionMultiply, 1.1, 0.9, 1.1, 1.1)
CROSS_MULTIPLY = by_node(multiply.UNetCrossAttentionMultiply, 1.1, 0.9, 1.1, 1.2)
