"""Model folders and safe reading, on the host's own folder lists."""

import os
import pickle

import folder_paths
import pytest
import torch
from pack.nodes.host.model_files import changed, model_files, not_found, or_none_found, path_of, read_weights
from safetensors.torch import save_file

KIND = "personalization_test"


@pytest.fixture
def models(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    monkeypatch.delitem(folder_paths.folder_names_and_paths, KIND, raising=False)
    yield tmp_path
    folder_paths.folder_names_and_paths.pop(KIND, None)
    folder_paths.filename_list_cache.pop(KIND, None)


def weights(path, **tensors):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors or {"a": torch.ones(2)}, path)
    return path


def test_a_new_kind_lists_weights_alone(models):
    assert model_files(KIND) == []
    weights(models / KIND / "one.safetensors")
    (models / KIND / "README.md").write_text("no weights")
    assert model_files(KIND) == ["one.safetensors"]
    assert path_of(KIND, "one.safetensors") == models / KIND / "one.safetensors"


def test_other_folders_count_too(models, tmp_path):
    weights(models / "older" / "two.safetensors")
    weights(tmp_path / "elsewhere" / "three.safetensors")
    (tmp_path / "elsewhere" / "notes.txt").write_text("no weights")
    # as extra_model_paths.yaml does before the pack is loaded
    folder_paths.add_model_folder_path(KIND, str(tmp_path / "elsewhere"))
    assert model_files(KIND, "older") == ["three.safetensors", "two.safetensors"]
    before = folder_paths.folder_names_and_paths[KIND]
    model_files(KIND, "older")
    assert folder_paths.folder_names_and_paths[KIND] is before


def test_sentences_name_folder_and_files(models):
    names = model_files(KIND)
    assert or_none_found(names, KIND) == [f"none found: put files into models/{KIND}"]
    assert or_none_found(["a"], KIND) == ["a"]
    assert str(models / KIND) in not_found("npnet_file", "x.pth", names, KIND)
    assert "found: a, b" in not_found("npnet_file", "x.pth", ["a", "b"], KIND)


def test_a_changed_file_is_seen(models):
    path = weights(models / KIND / "one.safetensors")
    before = changed([path])
    os.utime(path, ns=(1, 1))
    assert changed([path]) != before


@pytest.mark.parametrize("ending", ["pt", "pth", "bin", "ckpt"])
def test_pickles_of_plain_weights_are_read(ending, tmp_path):
    torch.save({"state_dict": {"a": torch.ones(2), "b": torch.zeros(1)}}, tmp_path / f"x.{ending}")
    read, _ = read_weights(tmp_path / f"x.{ending}")
    assert sorted(read) == ["a", "b"]


class Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("raw", [False, True], ids=["in a torch file", "a bare pickle"])
def test_nothing_in_a_pickle_runs(raw, tmp_path):
    content = {"a": torch.ones(2), "b": Harmful(tmp_path / "ran")}
    if raw:
        (tmp_path / "x.pt").write_bytes(pickle.dumps(content))
    else:
        torch.save(content, tmp_path / "x.pt")
    with pytest.raises(ValueError, match="x.pt is refused: .* nothing in it was run"):
        read_weights(tmp_path / "x.pt")
    assert not (tmp_path / "ran").exists()


def test_damaged_files(tmp_path):
    whole = weights(tmp_path / "x.safetensors", a=torch.ones(1000)).read_bytes()
    for content, says in (
        (whole[:-10], "damaged or incomplete"),
        (b"", "damaged or incomplete"),
        (b"<!DOCTYPE html><html>not found</html>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
    ):
        for name in ("x.safetensors", "x.pt"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(ValueError, match="damaged" if says.startswith("damaged") else says) as caught:
                read_weights(tmp_path / name)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_numbers(bad, tmp_path):
    path = weights(tmp_path / "x.safetensors", a=torch.ones(3), b=torch.tensor([1.0, bad]).half())
    with pytest.raises(ValueError, match="not numbers at b"):
        read_weights(path)


@pytest.mark.parametrize("content", [[1, 2], {"a": 3, "b": 4}, torch.ones(3)], ids=["list", "numbers", "tensor"])
def test_what_is_no_dictionary_of_tensors(content, tmp_path):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(ValueError, match="x.pt"):
        read_weights(tmp_path / "x.pt")
