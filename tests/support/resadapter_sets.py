"""ResAdapter sets in a model folder of their own, and what a MODEL's UNet does with weights patched in."""

from contextlib import contextmanager
from pathlib import Path

import comfy.utils
import folder_paths
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.golden_data import GOLDEN
from support.models import execute, tiny_adm

from pack.nodes.resadapter.resadapter_node import ResAdapter

LORA, NORMS = "pytorch_lora_weights.safetensors", "diffusion_pytorch_model.safetensors"
GOLDEN_SETS = GOLDEN / "resadapter"
# the entry of the set that comes with the pack
POCKET_SET = "pocket: resadapter"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The model folder "resadapter", holding the golden sets alone."""
    with only_sets_in(tmp_path / "resadapter", monkeypatch):
        for golden in GOLDEN_SETS.glob("tiny_*"):
            put(tmp_path / "resadapter" / golden.name, **{file.name: load_file(file) for file in golden.iterdir()})
        yield tmp_path / "resadapter"


@contextmanager
def only_sets_in(path, monkeypatch):
    monkeypatch.setattr(folder_paths, "models_dir", str(path.parent))
    loras = path.parent / "loras", folder_paths.folder_names_and_paths["loras"][1]
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(loras[0])], loras[1]))
    monkeypatch.delitem(folder_paths.folder_names_and_paths, "resadapter", raising=False)
    folder_paths.filename_list_cache.pop("resadapter", None)
    yield
    folder_paths.filename_list_cache.pop("resadapter", None)


def put(path, **files):
    """Writes files of weights into a set's folder."""
    path.mkdir(parents=True, exist_ok=True)
    for name, weights in files.items():
        save_file(weights, path / name)


def golden_set(name):
    """(LoRA weights, norm weights or None) of a golden set."""
    norms = GOLDEN_SETS / name / NORMS
    return load_file(GOLDEN_SETS / name / LORA), load_file(norms) if norms.exists() else None


def random_set(unet_config, shapes, rank=4, seed=0):
    """(LoRA weights, norm weights) as published, random, for a UNet of these shapes {host key: shape}."""
    generator = torch.Generator().manual_seed(seed)
    lora, norms = {}, {}
    for name, key in sorted(comfy.utils.unet_to_diffusers(unet_config).items()):
        if key not in shapes:
            continue
        if name.endswith("samplers.0.conv.weight"):
            module = f"lora_unet_{name.removesuffix('.weight').replace('.', '_')}"
            out, *rest = shapes[key]
            lora[f"{module}.alpha"] = torch.tensor(rank / 2).half()
            lora[f"{module}.lora_down.weight"] = (torch.randn(rank, *rest, generator=generator) * 0.1).half()
            lora[f"{module}.lora_up.weight"] = (torch.randn(out, rank, 1, 1, generator=generator) * 0.1).half()
        elif ".resnets." in name and ".norm" in name:
            norms[name] = torch.randn(shapes[key], generator=generator) * 0.05 + 0.5 * name.endswith("weight")
    return lora, norms


def with_set(model, name, **inputs):
    """(the MODEL, the report) after the ResAdapter node."""
    return execute(ResAdapter, model=model, adapter_set=name, **inputs)


@contextmanager
def patched_unet(model):
    """The UNet with a MODEL's patches in its weights."""
    model.patch_model()
    try:
        yield model.model.diffusion_model
    finally:
        model.unpatch_model()


def predicted(model, golden):
    """The noise that a MODEL predicts for a recorded case."""
    y = None
    if "pooled" in golden:
        y = tiny_adm(pooled_output=golden["pooled"], time_ids=golden["time_ids"][:1])
    with patched_unet(model) as unet:
        return unet(golden["latent"], golden["timestep"], golden["context"], y)


def weights_of(model):
    """A copy of the weights that a MODEL runs with, its patches included."""
    with patched_unet(model) as unet:
        return {key: tensor.clone() for key, tensor in unet.state_dict().items()}


def equal(one, two):
    """Whether two sets of weights are equal, bit for bit."""
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def host_key(model, name):
    """The UNet's own name of a weight that diffusers names."""
    return comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)[name]


def files(path):
    return sorted(str(file.relative_to(path)) for file in Path(path).rglob("*") if file.is_file())
