"""Load Image Adapter: the host's folders, and each file through the node as a user meets it."""

import folder_paths
import pytest
import torch
from support.harmful import Harmful
from support.image_adapters import as_trained, file_weights, nested, save, tiny_form
from support.models import execute, tiny_model

from pack.nodes.image_adapters.adapter_fit import check_fits
from pack.nodes.image_adapters.image_adapter import ImageAdapter
from pack.nodes.image_adapters.image_adapter_node import ImageAdapterLoader


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A models folder of our own, as the host's."""
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    monkeypatch.delitem(folder_paths.folder_names_and_paths, "ipadapter", raising=False)
    # the host remembers lists of files
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path / "models" / "ipadapter"


def loaded(name):
    return execute(ImageAdapterLoader, adapter_file=name)[0]


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
@pytest.mark.parametrize("variant", ["base", "plus", "full-face"])
@pytest.mark.parametrize("gate", [False, True])
@pytest.mark.parametrize("ending", ["bin", "safetensors"])
def test_files_become_adapters(folder, kind, variant, gate, ending):
    weights = file_weights(**tiny_form(kind, variant, gate))
    save(folder / "deep" / f"x.{ending}", weights)
    adapter = loaded(f"deep/x.{ending}")
    assert isinstance(adapter, ImageAdapter) and adapter.variant == variant and adapter.gated == gate
    assert len(check_fits(adapter, tiny_model(kind).model.diffusion_model)) == len(adapter.pairs)
    seen = torch.randn(2, 24) if variant == "base" else torch.randn(2, 17, 32)
    tokens = adapter.project(seen)
    assert tokens.shape == (2, {"base": 4, "plus": 16, "full-face": 17}[variant], adapter.width)
    assert torch.isfinite(tokens).all() and tokens.std() > 0.1


def test_a_training_checkpoint_is_an_adapter(folder):
    weights = file_weights(**tiny_form("sdxl", "plus", gate=True))
    folder.mkdir(parents=True)
    torch.save(as_trained(weights), folder / "pytorch_model.bin")
    adapter = loaded("pytorch_model.bin")
    assert adapter.gated and torch.equal(adapter.pairs[1].to_k, weights["ip_adapter.3.to_k_ip.weight"])


def test_names_of_files(folder, tmp_path, monkeypatch):
    def entries():
        # the pack's own files stand behind the user's
        return [one for one in ImageAdapterLoader.define_schema().inputs[0].options if not one.startswith("pocket: ")]

    (entry,) = entries()
    assert "models/ipadapter" in entry
    assert "nothing is there yet" in ImageAdapterLoader.validate_inputs(adapter_file=entry)

    weights = file_weights(**tiny_form("sd15"))
    save(folder / "mine.safetensors", weights)
    # as extra_model_paths.yaml names one
    save(tmp_path / "elsewhere" / "other.bin", weights)
    folder_paths.add_model_folder_path("ipadapter", str(tmp_path / "elsewhere"))
    folder_paths.filename_list_cache.clear()
    assert sorted(entries()) == ["mine.safetensors", "other.bin"]
    assert ImageAdapterLoader.validate_inputs(adapter_file="other.bin") is True
    assert ImageAdapterLoader.validate_inputs() is True and loaded("other.bin").variant == "base"
    missing = ImageAdapterLoader.validate_inputs(adapter_file="model_sdxl.bin")
    assert 'adapter_file "model_sdxl.bin" is not in' in missing and str(folder) in missing and "other.bin" in missing

    before = ImageAdapterLoader.fingerprint_inputs(adapter_file="mine.safetensors")
    assert before == ImageAdapterLoader.fingerprint_inputs(adapter_file="mine.safetensors")
    save(folder / "mine.safetensors", file_weights(**tiny_form("sd15", "plus")))
    assert before != ImageAdapterLoader.fingerprint_inputs(adapter_file="mine.safetensors")


def test_the_folder_is_the_hosts(monkeypatch):
    monkeypatch.undo()
    paths, extensions = folder_paths.folder_names_and_paths["ipadapter"]
    assert any(path.endswith("ipadapter") for path in paths) and {".bin", ".safetensors"} <= set(extensions)


def write(path, contents):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(contents, path)


def test_a_pickle_with_foreign_globals_is_refused_and_not_run(folder, tmp_path):
    contents = nested(file_weights(**tiny_form("sdxl")))
    write(folder / "evil.bin", {**contents, "extra": Harmful(tmp_path / "ran")})
    with pytest.raises(ValueError, match=r"evil.bin is not safe: it asks for \w+.mkdir; nothing in it was run"):
        loaded("evil.bin")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("key", ["ip_adapter.3.to_v_ip.weight", "image_proj.norm.weight"])
def test_values_that_are_not_numbers(folder, bad, key):
    weights = file_weights(**tiny_form("sdxl"))
    weights[key].view(-1)[-1] = bad
    for name in ("x.bin", "x.safetensors"):
        save(folder / name, weights)
        with pytest.raises(ValueError, match=f"{name} contains NaN or infinite values at {key}"):
            loaded(name)


def test_other_files_are_named(folder):
    weights = file_weights(**tiny_form("sd15"))
    other = {**weights, "image_proj.grounding_latents": torch.zeros(1, 4, 4)}
    save(folder / "other.bin", other)
    with pytest.raises(ValueError, match="other.bin: this is an MS-Diffusion file; use "):
        loaded("other.bin")
    save(folder / "cut.safetensors", weights)
    (folder / "cut.safetensors").write_bytes((folder / "cut.safetensors").read_bytes()[:5000])
    with pytest.raises(ValueError, match="cut.safetensors is truncated"):
        loaded("cut.safetensors")
    (folder / "page.bin").write_bytes(b"<!DOCTYPE html><html>sign in</html>")
    with pytest.raises(ValueError, match="page.bin is a web page"):
        loaded("page.bin")
