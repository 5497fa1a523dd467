"""Concepts on the tiny models: golden cases, and random ones, as users connect them."""

import comfy.sd
import comfy.utils
import torch
from support.golden_data import case
from support.models import StubVAE, conditioning, execute, tiny_model
from support.references import draw, prompt

from pack.nodes.concept_conductor.concept_conductor_node import ConceptConductor
from pack.nodes.concept_conductor.concepts_node import AddConcept


def lora_of(golden, number, scale):
    """The state of an ordinary LoRA file from a golden case's tensors; no alpha, `scale` goes to the loader."""
    prefix = f"lora{number}/"
    state = {}
    for key, tensor in golden.items():
        if key.startswith(prefix):
            module, kind, _ = key.removeprefix(prefix).rsplit(".", 2)
            state[f"lora_unet_{module.replace('.', '_')}.{kind}.weight"] = tensor
    assert state
    return state


def with_lora(model, state, strength):
    """The MODEL that the host's LoRA loader makes."""
    return comfy.sd.load_lora_for_models(model, None, state, strength, 0.0)[0]


def text_of(golden, name, params):
    """The CONDITIONING of a golden case's text: layer-wise where it is."""
    context = golden[f"ctx/{name}"]
    values = {}
    if f"pooled/{name}" in golden:
        values = {"pooled_output": golden[f"pooled/{name}"], "time_ids": torch.tensor(params["time_ids"])[None]}
    if len(context) > 1:
        values["personalization_layers"] = context
    return conditioning(context[:1], **values)


def golden_concepts(model, golden, params):
    """The chain of a golden case."""
    chain = ()
    for number in range(1, params["num_concepts"] + 1):
        (chain,) = execute(
            AddConcept,
            model=with_lora(model, lora_of(golden, number, 1), params["lora_alpha"]),
            positive=text_of(golden, f"custom{number}", params),
            negative=text_of(golden, f"custom{number}_neg", params),
            mask=golden["masks_px"][number - 1][None].float(),
            concepts=chain,
        )
    return chain


def golden_conductor(model, golden, params, steps, **inputs):
    """The MODEL of a golden case through the nodes, for a run of so many steps."""
    refined = params["mask_refinement_start"] <= params["mask_refinement_end"] < steps
    values = {
        "guidance_weight": params["attn_guidance_weight"],
        "guidance_end": params["attn_guidance_end"] / steps,
        "guidance_interval": params["attn_guidance_interval"],
        "custom_factor": params["custom_attn_guidance_factor"],
        "refine_start": params["mask_refinement_start"] / steps if refined else 1.0,
        "refine_end": params["mask_refinement_end"] / steps if refined else 0.0,
        "refine_interval": params["mask_update_interval"] / steps,
        "iou_threshold": params["mask_overlap_threshold"],
        "kmeans_restarts": params["num_kmeans_init"],
        "rect_mask": params["rect_mask"],
        "use_loss_mask": params["use_loss_mask"],
        "concepts": golden_concepts(model, golden, params),
        "layout_image": torch.rand(1, *(8 * side for side in params["latent_hw"]), 3),
        "layout_positive": text_of(golden, "ref", params),
        "vae": StubVAE(model, torch.zeros(1, 4, *params["latent_hw"])),
        **inputs,
    }
    return execute(ConceptConductor, model=model, **values)[0]


def golden_model(params):
    return tiny_model(params["model"].removeprefix("tiny_"))


def golden_case(name):
    return case(f"concept_conductor/{name}")


def random_lora(model, seed, rank=2, scale=0.15):
    """A LoRA file on every attention projection of a MODEL's UNet."""
    state = {}
    for i, (key, weight) in enumerate(sorted(model.model.diffusion_model.state_dict().items())):
        if key.endswith(("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight")):
            name = "lora_unet_" + key.removesuffix(".weight").replace(".", "_")
            rows, columns = weight.shape
            state[f"{name}.lora_up.weight"] = draw(rows, rank, seed=1000 * seed + i) * scale * rows**-0.5
            state[f"{name}.lora_down.weight"] = draw(rank, columns, seed=1000 * seed + i + 500)
    return state


def dora(state):
    """The LoRA with a magnitude for each output, which cannot be added beside the layer."""
    for name in [key.removesuffix(".lora_up.weight") for key in state if key.endswith(".lora_up.weight")]:
        rows = state[f"{name}.lora_up.weight"].shape[0]
        state[f"{name}.dora_scale"] = 0.5 + draw(rows, 1, seed=rows).abs()
    return state


def strip(number, count, height=64, width=64):
    """The mask of one of `count` upright strips."""
    mask = torch.zeros(1, height, width)
    mask[:, :, number * width // count : (number + 1) * width // count] = 1
    return mask


def random_concepts(model, count=2, size=(64, 64), tokens=7, **fields):
    """A chain of `count` random LoRAs beside each other; fields: lists of further inputs."""
    chain = ()
    for number in range(count):
        own = {name: values[number] for name, values in fields.items()}
        inputs = {
            "model": with_lora(model, random_lora(model, number), 1.0),
            "positive": prompt(model, 300 + number, tokens),
            "negative": prompt(model, 400 + number, tokens),
            "mask": strip(number, count, *size),
            **own,
        }
        (chain,) = execute(AddConcept, concepts=chain, **inputs)
    return chain


def both_kinds(model):
    """A chain of a concept with an ordinary LoRA, and of one that needs weights of its own."""
    own = with_lora(model, dora(random_lora(model, 5)), 1.0)
    inputs = {"positive": prompt(model, 305), "mask": strip(1, 2), "concepts": random_concepts(model, 1)}
    return execute(AddConcept, model=own, **inputs)[0]


def conducted(model, chain=None, layout=False, size=(8, 8), **inputs):
    """The MODEL after the conductor, without a layout picture or with one of the result's size."""
    if layout:
        from support.references import PixelVAE

        picture = torch.rand(1, 8 * size[0], 8 * size[1], 3, generator=torch.Generator().manual_seed(9))
        inputs = {"layout_image": picture, "layout_positive": prompt(model, 500), "vae": PixelVAE(), **inputs}
    values = {"refine_start": 1.0, "refine_end": 0.0, "cache_mb": 0, **inputs}
    chain = random_concepts(model) if chain is None else chain
    return execute(ConceptConductor, model=model, concepts=chain, **values)[0]
