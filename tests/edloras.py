"""ED-LoRA files to test with: the golden one, and random ones for models of any size, in a loras folder."""

from contextlib import contextmanager

import comfy.utils
import folder_paths
import pytest
import torch
from golden_data import GOLDEN
from safetensors.torch import save_file

TINY = GOLDEN / "concept_conductor" / "edlora_tiny_sd15.pth"


@pytest.fixture
def loras(tmp_path, monkeypatch):
    """An empty loras folder, the only one."""
    with only_loras_in(tmp_path / "loras", monkeypatch):
        yield tmp_path / "loras"


@contextmanager
def only_loras_in(path, monkeypatch):
    path.mkdir()
    monkeypatch.setattr(folder_paths, "models_dir", str(path.parent))
    endings = folder_paths.folder_names_and_paths["loras"][1]
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(path)], endings))
    folder_paths.filename_list_cache.pop("loras", None)
    yield
    folder_paths.filename_list_cache.pop("loras", None)


def tiny_contents():
    return torch.load(TINY, map_location="cpu", weights_only=True)["params"]


def put(path, contents, wrapped=True):
    """Writes contents (nested dicts) as .pth or, with the levels joined, as safetensors."""
    if path.suffix == ".safetensors":
        save_file({key: t.contiguous() for key, t in joined(contents).items()}, path)
    else:
        torch.save({"params": contents} if wrapped else contents, path)
    return path.name


def joined(contents, prefix=""):
    flat = {}
    for key, value in contents.items():
        flat |= joined(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def unet_modules(model, where=("to_q", "to_k", "to_v", "to_out.0")):
    """{diffusers name: shape of the weight} of a MODEL's attentions."""
    names = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    state = model.model.diffusion_model.state_dict()
    modules = {name.removesuffix(".weight"): key for name, key in names.items() if name.endswith(".weight")}
    return {m: state[key].shape for m, key in modules.items() if ".attn" in m and m.endswith(where)}


def random_contents(model, clip, names=("<dog_1>", "<dog_2>"), layers=None, rank=2, seed=0, size=0.3):
    """An ED-LoRA for a MODEL and a CLIP (contents of the .pth), random."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(shape, generator=generator) * size

    def halves(shapes):
        return {
            f"{module}.lora_{half}.weight": random(*shape)
            for module, (out, *rest) in shapes.items()
            for half, shape in (("down", (rank, *rest)), ("up", (out, rank)))
        }

    unet = unet_modules(model)
    layers = layers or sum(module.endswith("attn2.to_k") for module in unet)
    contents = {"unet": halves(unet)}
    for number, encoder in ((1, "clip_l"), (2, "clip_g")):
        network = getattr(clip.cond_stage_model, encoder, None)
        if network is not None:
            suffix = "" if number == 1 else "_2"
            state = network.transformer.state_dict()
            modules = {k.removesuffix(".weight"): v.shape for k, v in state.items() if k.endswith("_proj.weight")}
            contents[f"text_encoder{suffix}"] = halves(modules)
            width = network.transformer.get_input_embeddings().weight.shape[1]
            contents[f"new_concept_embedding{suffix}"] = {name: random(layers, width) / size for name in names}
    return contents
