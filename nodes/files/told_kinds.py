"""Of which kind a file of weights is, told by what it holds, and which node reads it."""

import re

_LORA = re.compile(
    r"(?:^|[._])lora[._](?:down|up|A|B|linear_layer|layer)\b|lora_(?:down|up|A|B)\.|\.(?:hada|lokr|oft)_"
)
_KRONA = re.compile(r"\.processor\.to_(?:q|k|v|out)_lora\.(?:down|up)\.weight$")

# {kind: (what it is, which node reads it)}
KINDS = {
    "NeTI": ("a NeTI mapper", "Load NeTI"),
    "ProSpect": ("a ProSpect file", "Load ProSpect"),
    "Perfusion": ("a Perfusion file", "Load Perfusion"),
    "ED-LoRA": ("an ED-LoRA", "Load ED-LoRA"),
    "Custom Diffusion": ("a Custom Diffusion file", "Load Custom Diffusion"),
    "KronA": ("a LoRA or KronA file with processor names", "Load LoRA or Load KronA"),
    "LoRA": ("a LoRA", "Load LoRA"),
    "checkpoint": ("a whole checkpoint", "Load Checkpoint"),
    "UNet": ("a UNet", "Load Diffusion Model"),
    "words": ("a file of learned words", "Load Concept Words"),
}


def kind_of(contents):
    """The kind (a key of KINDS) of a file's contents, None for what none of them is."""
    if not isinstance(contents, dict):
        return "words" if _are_words(contents) else None
    keys = {key for key in contents if isinstance(key, str)}
    inner = contents.get("state_dict")
    names = {key for part in (contents, inner) if isinstance(part, dict) for key in part if isinstance(key, str)}
    if {"cfg", "encoder"} & keys and isinstance(inner, dict):
        return "NeTI"
    if {"attention", "initial_embeddings"} <= keys:
        return "ProSpect"
    if "C_inv" in keys:
        return "Perfusion"
    if any(key.partition(".")[0].partition("/")[0] == "new_concept_embedding" for key in _levels(contents)):
        return "ED-LoRA"
    if any("first_stage_model." in key or ".attn1." in key and key.startswith("model.") for key in names):
        return "checkpoint"
    if _is_custom_diffusion(contents, names):
        return "Custom Diffusion"
    if any(key.startswith("bundle_emb.") for key in keys):
        return "words"
    if any(_KRONA.search(key) for key in names):
        return "KronA"
    if any(_LORA.search(key) for key in names):
        return "LoRA"
    if any(".attn1.to_q.weight" in key or key.endswith("attn2.to_k.weight") for key in names):
        return "UNet"
    return "words" if _are_words(contents) else None


def _levels(contents):
    """The names of a file and of the parts in its only part, as trainers wrap theirs."""
    params = contents.get("params")
    found = [key for key in contents if isinstance(key, str)]
    if isinstance(params, dict):
        found += [key for key in params if isinstance(key, str)]
    return [key.removeprefix("params.").removeprefix("params/") for key in found]


def _is_custom_diffusion(contents, names):
    unet = contents.get("unet")
    if isinstance(unet, dict) and any(isinstance(key, str) and ".attn2." in key for key in unet):
        return True
    return any("_custom_diffusion." in key or (".attn2." in key and key.startswith("model.")) for key in names)


def _are_words(contents):
    if isinstance(contents, list):
        return bool(contents) and all(isinstance(one, dict) for one in contents)
    named = {"string_to_param", "clip_l", "clip_g", "clip_h", "text_encoders_0", "emb_params", "modifier_token"}
    if named & contents.keys():
        return True
    tensors = [value for value in contents.values() if hasattr(value, "ndim")]
    return bool(tensors) and len(tensors) == len(contents) and all(one.ndim in (1, 2) for one in tensors)
