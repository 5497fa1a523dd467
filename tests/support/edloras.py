"""ED-LoRA files to test with: the golden one, and random ones for models of any size, in a loras folder."""

from contextlib import contextmanager

import comfy.utils
import folder_paths
import pytest
import torch
from safetensors.torch import save_file
from support.golden_data import GOLDEN

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


def random_contents(model, clip, **settings):
    """An ED-LoRA for a MODEL and a CLIP (contents of the .pth), random."""
    networks = [getattr(clip.cond_stage_model, name, None) for name in ("clip_l", "clip_g")]
    texts = [shapes(network.transformer.state_dict()) for network in networks if network is not None]
    return random_parts(
        model.model.model_config.unet_config, shapes(model.model.diffusion_model.state_dict()), texts, **settings
    )


def shapes(state):
    return {key: tuple(tensor.shape) for key, tensor in state.items()}


def random_parts(unet_config, unet, texts, names=("<dog_1>", "<dog_2>"), layers=None, rank=2, seed=0, size=0.3):
    """The same for a UNet and text encoders of these shapes {key: shape}."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(shape, generator=generator) * size

    def halves(modules):
        return {
            f"{module}.lora_{half}.weight": random(*shape)
            for module, (out, *rest) in modules.items()
            for half, shape in (("down", (rank, *rest)), ("up", (out, rank)))
        }

    attentions = attentions_of(unet_config, unet)
    layers = layers or sum(module.endswith("attn2.to_k") for module in attentions)
    contents = {"unet": halves(attentions)}
    for suffix, text in zip(("", "_2"), texts):
        modules = {key.removesuffix(".weight"): text[key] for key in text if key.endswith("_proj.weight")}
        contents[f"text_encoder{suffix}"] = halves(modules)
        width = text["text_model.encoder.layers.0.self_attn.q_proj.weight"][0]
        contents[f"new_concept_embedding{suffix}"] = {name: random(layers, width) / size for name in names}
    return contents


def attentions_of(unet_config, unet):
    """{diffusers name: shape of the weight} of the attentions of a UNet of these shapes."""
    names = comfy.utils.unet_to_diffusers(unet_config)
    modules = {
        n.removesuffix(".weight"): unet[key] for n, key in names.items() if n.endswith(".weight") and key in unet
    }
    projections = ("to_q", "to_k", "to_v", "to_out.0")
    return {module: shape for module, shape in modules.items() if ".attn" in module and module.endswith(projections)}
