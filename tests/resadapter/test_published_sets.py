"""The eight published sets at true size. Their folder is named by RESADAPTER_SETS; without it they are not run."""

import os
from pathlib import Path

import comfy.lora
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import comfy.utils
import folder_paths
import pytest
import torch
from support.resadapter_sets import LORA, NORMS, only_sets_in, with_set

from pack.nodes.resadapter.adapter_sets import read_set
from pack.nodes.resadapter.published_sets import PUBLISHED_SETS
from pack.nodes.resadapter.set_export import export_resadapter

SETS = os.environ.get("RESADAPTER_SETS")
pytestmark = pytest.mark.skipif(
    not SETS,
    reason="the published ResAdapter sets are missing; to run them: download bytedance/res-adapter and name the folder "
    "that holds its eight sets in RESADAPTER_SETS",
)
SHARED = dict(
    image_size=32, in_channels=4, out_channels=4, model_channels=320, use_spatial_transformer=True, legacy=False,
    use_temporal_attention=False, use_temporal_resblock=False, dtype=torch.float32,
)  # fmt: skip
UNETS = {
    "SD1.5": (
        comfy.supported_models.SD15,
        dict(
            num_res_blocks=[2, 2, 2, 2], channel_mult=[1, 2, 4, 4], transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0],
            transformer_depth_output=[1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], transformer_depth_middle=1, context_dim=768,
            use_linear_in_transformer=False, adm_in_channels=None,
        ),
    ),
    "SDXL": (
        comfy.supported_models.SDXL,
        dict(
            num_res_blocks=[2, 2, 2], channel_mult=[1, 2, 4], transformer_depth=[0, 0, 2, 2, 10, 10],
            transformer_depth_output=[0, 0, 0, 2, 2, 2, 10, 10, 10], transformer_depth_middle=10, context_dim=2048,
            use_linear_in_transformer=True, adm_in_channels=2816, num_classes="sequential",
        ),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def models():
    """Models of true size whose weights take no memory."""
    found = {}
    for family, (kind, unet) in UNETS.items():
        config = kind(SHARED | unet)
        config.set_inference_dtype(torch.float32, None)
        with torch.device("meta"):
            base = config.get_model({}, "", device=torch.device("meta"))
        found[family] = comfy.model_patcher.ModelPatcher(base, torch.device("cpu"), torch.device("cpu"))
    return found


@pytest.fixture
def published(tmp_path, monkeypatch):
    with only_sets_in(tmp_path / "models" / "resadapter", monkeypatch):
        folder_paths.add_model_folder_path("resadapter", str(Path(SETS).resolve()))
        yield tmp_path


def patched_values(model, base):
    """The patched weights of a MODEL, computed by the host's own formula on given base weights."""
    return {key: comfy.lora.calculate_weight(patches, base[key].clone(), key) for key, patches in model.patches.items()}


@pytest.mark.parametrize("name", PUBLISHED_SETS)
def test_told_applied_and_exported(name, models, published):
    family = PUBLISHED_SETS[name].family
    adapter = read_set(name)
    assert adapter.published == name and adapter.family == family
    assert adapter.interpolates == name.endswith("_interpolation")
    model = models[family]
    patched, report = with_set(model, name, norms="on")
    count = (6, 88) if family == "SD1.5" else (4, 68)
    assert f"LoRA: {count[0]} conv" in report and f"norms: {count[1]} tensors" in report and "published set" in report
    assert (
        "rank 32, the file's scale 0.25"
        if name == "resadapter_v1_sdxl_extrapolation"
        else "rank 16, the file's scale 0.5"
    ) in report
    assert len(patched.patches) == sum(count)

    path = export_resadapter(model, name, "exported")
    stock = comfy.sd.load_lora_for_models(model, None, comfy.utils.load_torch_file(path), 1.0, 0)[0]
    assert stock.patches.keys() == patched.patches.keys()
    generator = torch.Generator().manual_seed(0)
    shapes = {key: tensor.shape for key, tensor in model.model.state_dict().items()}
    base = {key: torch.randn(shapes[key], generator=generator) * 0.05 for key in patched.patches}
    ours = patched_values(patched, base)
    for key, tensor in patched_values(stock, base).items():
        torch.testing.assert_close(tensor, ours[key], rtol=0, atol=2e-6)

    other = models["SDXL" if family == "SD1.5" else "SD1.5"]
    with pytest.raises(ValueError, match=f"this is the {family} ResAdapter"):
        with_set(other, name)


@pytest.mark.parametrize("name", PUBLISHED_SETS)
def test_told_under_any_name(name, models, published):
    """By contents: with other folder and file names, the halves swapped."""
    there = published / "models" / "resadapter" / "renamed"
    there.mkdir(parents=True)
    (there / NORMS).symlink_to(Path(SETS).resolve() / name / LORA)
    (there / "x.safetensors").symlink_to(Path(SETS).resolve() / name / NORMS)
    adapter = read_set("renamed")
    assert adapter.published == name
    _, report = with_set(models[PUBLISHED_SETS[name].family], "renamed")
    assert f"renamed (published set {name}) on " in report
    assert ("norms: off" in report) == name.endswith("_interpolation")


def test_halves_of_two_sets_are_said(models, published, tmp_path):
    there = published / "models" / "resadapter" / "mixed"
    there.mkdir(parents=True)
    sets = Path(SETS).resolve()
    (there / LORA).symlink_to(sets / "resadapter_v2_sd1.5" / LORA)
    (there / NORMS).symlink_to(sets / "resadapter_v1_sd1.5" / NORMS)
    _, report = with_set(models["SD1.5"], "mixed")
    assert "note: its two files are from different sets: resadapter_v1_sd1.5 and resadapter_v2_sd1.5" in report
    (there / NORMS).unlink()
    (there / NORMS).symlink_to(sets / "resadapter_v1_sdxl" / NORMS)
    with pytest.raises(ValueError, match="its two files are for SD1.5 and SDXL"):
        with_set(models["SD1.5"], "mixed")
