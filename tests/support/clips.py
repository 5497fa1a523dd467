"""Tiny CLIPs of the host, with its own tokenizer or one that reads numbers."""

from types import SimpleNamespace

import comfy.sd
import torch
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer, SDTokenizer
from comfy.sdxl_clip import SDXLClipModel, SDXLTokenizer
from comfy.text_encoders.sd2_clip import SD2ClipModel, SD2Tokenizer
from support.golden_data import case
from support.models import StubCLIP

NETWORKS = {
    "sd15": (SD1ClipModel, SD1Tokenizer),
    "sdxl": (SDXLClipModel, SDXLTokenizer),
    "sd2": (SD2ClipModel, SD2Tokenizer),
}
SIZES = {"l": 32, "g": 48, "h": 40}
TOKENS = 49408


def config(width, positions=77):
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "max_position_embeddings": positions}
    return sizes | {"num_hidden_layers": 3, "num_attention_heads": 4}


def tiny_clip(kind="sd15", seed=0, positions=77, widths=SIZES):
    """A CLIP of a kind with random weights: the host's network of 3 layers, and its own tokenizer."""
    network, tokenizer = NETWORKS[kind]
    options = {f"clip_{name}_model_config": config(width, positions) for name, width in widths.items()}
    target = SimpleNamespace(params={}, clip=network, tokenizer=tokenizer)
    clip = comfy.sd.CLIP(target, model_options={**options, "dtype": torch.float32})
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in clip.cond_stage_model.state_dict().items():
        if tensor.ndim > 1:
            std = 1.0 if "embedding" in name else tensor.shape[1] ** -0.5
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * std)
        elif name.endswith(".weight"):
            tensor.fill_(1.0)
        elif name.endswith(".bias"):
            tensor.zero_()
    return clip


class Numbers:
    """An inner tokenizer whose texts are the token ids themselves."""

    def __init__(self, start, end):
        self.start, self.end = start, end

    def __call__(self, text):
        return {"input_ids": [self.start, *map(int, text.split()), self.end]}


def golden_clip():
    """(the CLIP of the golden text case, its tensors, its parameters); prompts are numbers, as "11 <cat_1> 25"."""
    golden, params = case("concept_conductor/text_sd15")
    positions = params["max_tokens"]
    clip = tiny_clip("sd15", positions=positions)
    encoder = clip.cond_stage_model.clip_l
    assert config(32, positions)["num_hidden_layers"] == params["layers"]
    weights = {key.removeprefix("te/"): t.float() for key, t in golden.items() if key.startswith("te/")}
    state = encoder.transformer.state_dict()
    for name, tensor in weights.items():
        # the host's table is as long as CLIP's vocabulary
        state[name][: len(tensor)] = tensor
    start, end = params["bos"], params["eos"]
    encoder.special_tokens = {"start": start, "end": end, "pad": end}
    tokenizer = clip.tokenizer.clip_l
    assert isinstance(tokenizer, SDTokenizer)
    tokenizer.tokenizer = Numbers(start, end)
    tokenizer.start_token, tokenizer.end_token, tokenizer.pad_token = start, end, end
    tokenizer.max_length = positions
    return clip, golden, params


def prompt_of(ids, params):
    """The text of the golden case's token ids, without what stands around it."""
    around = (params["bos"], params["eos"])
    return " ".join(params["placeholders"].get(str(i), str(i)) for i in ids.tolist() if i not in around)


def encoded(clip, text):
    """What the host's CLIP Text Encode gives."""
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


class NumberedCLIP(StubCLIP):
    """Texts are the token numbers that the host's CLIP would hand out."""

    def tokenize(self, text):
        return {"l": [[(int(number), 1.0) for number in text.split()]]}
