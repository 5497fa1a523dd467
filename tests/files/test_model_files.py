"""Model folders, on the host's own folder lists."""

import json
import os

import folder_paths
import pytest
import torch
from safetensors.torch import save_file

from pack.nodes.files.companions import companions
from pack.nodes.files.model_files import choices, file_names, not_found, path_of, register, stamp, valid

KIND, ALIAS = "personalization_test", "personalization_older"


@pytest.fixture
def models(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    yield tmp_path
    for kind in (KIND, ALIAS):
        folder_paths.folder_names_and_paths.pop(kind, None)
        folder_paths.filename_list_cache.pop(kind, None)


def weights(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"a": torch.ones(2)}, path)
    return path


def test_a_new_kind_lists_weights_alone(models):
    assert file_names(KIND) == []
    weights(models / KIND / "one.safetensors")
    (models / KIND / "README.md").write_text("no weights")
    assert file_names(KIND) == ["one.safetensors"]
    assert path_of("one.safetensors", KIND) == models / KIND / "one.safetensors"


def test_other_folders_count_too(models, tmp_path):
    weights(models / ALIAS / "two.safetensors")
    weights(tmp_path / "elsewhere" / "three.safetensors")
    (tmp_path / "elsewhere" / "notes.txt").write_text("no weights")
    # as extra_model_paths.yaml does before the pack is loaded; whoever lists the kind then sees every file
    folder_paths.add_model_folder_path(KIND, str(tmp_path / "elsewhere"))
    assert "notes.txt" in folder_paths.get_filename_list(KIND)
    assert file_names(KIND, ALIAS) == ["three.safetensors", "two.safetensors"]
    assert path_of("two.safetensors", KIND, ALIAS) == models / ALIAS / "two.safetensors"
    before = folder_paths.folder_names_and_paths[KIND]
    file_names(KIND, ALIAS)
    assert folder_paths.folder_names_and_paths[KIND] is before


def test_what_another_pack_registered_stays(models, tmp_path):
    theirs, endings = [str(tmp_path / "theirs")], {".pth"}
    folder_paths.folder_names_and_paths[KIND] = (theirs, endings)
    register(KIND)
    paths, extensions = folder_paths.folder_names_and_paths[KIND]
    # their list is the same one, with our folder behind theirs
    assert paths is theirs and extensions is endings == {".pth"}
    assert paths == [str(tmp_path / "theirs"), str(models / KIND)]
    # one that is loaded after us takes the entry for itself
    folder_paths.folder_names_and_paths[KIND] = ([str(tmp_path / "later")], {".safetensors"})
    weights(models / KIND / "one.safetensors")
    assert file_names(KIND) == ["one.safetensors"]


def test_sentences_name_folder_and_files(models):
    names = file_names(KIND, ALIAS)
    (entry,) = choices(names, KIND)
    assert entry == f"none found: put files into models/{KIND} and refresh the page"
    assert choices(["a"], KIND) == ["a"]
    said = not_found("npnet_file", "x.pth", names, KIND, ALIAS)
    assert str(models / KIND) in said and str(models / ALIAS) in said and "nothing is there yet" in said
    assert "found: a, b)" in not_found("npnet_file", "x.pth", ["a", "b"], KIND)
    many = not_found("npnet_file", "x.pth", [f"file{n}" for n in range(30)], KIND)
    assert "file9, ...)" in many and "file10" not in many
    assert "none found" not in not_found("npnet_file", entry, names, KIND)


def test_companions_stand_behind_the_users_files(models):
    for kind in ("npnet", "ipadapter", "resadapter", "loras"):
        offered = list(companions(kind))
        assert offered and all(name.startswith("pocket: ") and path_of(name, kind).is_file() for name in offered)
        assert file_names(kind)[-len(offered) :] == offered and valid("x", offered[0], kind) is True
        first, *rest = choices(offered, kind)
        assert first.startswith("none found") and rest == offered
        assert "pocket" not in not_found("x", first, offered, kind)
    assert "pocket: lion_edlora" in companions("loras") and "pocket: lion_lora" not in companions("loras")
    assert not companions("checkpoints") and not companions("../npnet")


def test_a_companions_name_is_no_path(models):
    for name in ("pocket: ../unet", "pocket: lion_lora", "pocket: "):
        assert "is not in" in valid("x", name, "loras", "npnet")
        with pytest.raises(ValueError, match="is not in"):
            path_of(name, "loras", "npnet")


@pytest.mark.skipif(os.name == "nt", reason="Windows writes no colon into a name")
def test_a_file_called_like_a_companion_is_not_offered(models, caplog):
    weights(models / "npnet" / "pocket: npnet.safetensors")
    weights(models / "npnet" / "mine.safetensors")
    folder_paths.filename_list_cache.pop("npnet", None)
    assert file_names("npnet") == ["mine.safetensors", *companions("npnet")]
    assert "rename it" in caplog.text


def test_a_file_that_is_gone(models):
    weights(models / KIND / "one.safetensors")
    file_names(KIND)
    with pytest.raises(ValueError, match='"two.safetensors" is not in .*found: one.safetensors'):
        path_of("two.safetensors", KIND, ALIAS)


def test_a_changed_file_is_seen(models):
    path = weights(models / ALIAS / "one.safetensors")
    names = file_names(KIND, ALIAS)
    before = stamp(names, KIND, ALIAS)
    assert before == stamp(names, KIND, ALIAS)
    os.utime(path, ns=(1, 1))
    changed = stamp(names, KIND, ALIAS)
    path.unlink()
    assert len({before, changed, stamp(names, KIND, ALIAS)}) == 3


def test_a_file_that_goes_while_it_is_looked_at_is_gone(models, monkeypatch):
    """The host has just found it; then a sync or a user takes it away."""
    path = weights(models / ALIAS / "one.safetensors")
    names = file_names(KIND, ALIAS)
    there = stamp(names, KIND, ALIAS)
    found = folder_paths.get_full_path

    def looked_up(kind, name):
        at = found(kind, name)
        if at is not None:
            path.unlink()
        return at

    monkeypatch.setattr(folder_paths, "get_full_path", looked_up)
    going = stamp(names, KIND, ALIAS)
    assert going == stamp(names, KIND, ALIAS) != there


def test_a_stamp_tells_no_path(tmp_path, monkeypatch):
    """The host writes it into every picture."""
    (tmp_path / "one.safetensors").write_bytes(b"1")
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "npnet", ([str(tmp_path)], {".safetensors"}))
    first = stamp(["one.safetensors"], "npnet")
    assert str(tmp_path) not in json.dumps(first) and first == stamp(["one.safetensors"], "npnet")
    (tmp_path / "one.safetensors").write_bytes(b"12")
    assert stamp(["one.safetensors"], "npnet") != first


def test_names_that_a_page_might_take_for_more_are_not_offered(models, caplog):
    for name in ("<img src=x onerror=alert(1)>", "a\u202eb", "a\nb", "a & b", "\u732b"):
        weights(models / KIND / f"{name}.safetensors")
    weights(models / KIND / "<b>" / "one.safetensors")
    assert sorted(file_names(KIND)) == ["a & b.safetensors", "\u732b.safetensors"]
    assert sorted(file_names(KIND)) == ["a & b.safetensors", "\u732b.safetensors"]
    said = [record.getMessage() for record in caplog.records if "is not offered" in record.getMessage()]
    assert len(said) == 4 and all(one.isprintable() for one in said)


@pytest.mark.parametrize("space", ["\u00a0", "\u2003", "\u202f", "\u3000"], ids=ascii)
def test_names_with_spaces_of_any_width_are_offered(models, space):
    """Copied from pages, or typed on Japanese keyboards."""
    name = f"my{space}cat.safetensors"
    path = weights(models / KIND / name)
    assert file_names(KIND) == [name] and valid("file", name, KIND) is True and path_of(name, KIND) == path


@pytest.mark.parametrize("name", ["sub/one.safetensors", "sub\\one.safetensors"])
def test_folders_are_found_with_the_separators_of_any_system(models, name):
    """A workflow may come from another one, and tools that send it on turn them round."""
    path = weights(models / KIND / "sub" / "one.safetensors")
    assert valid("file", name, KIND) is True and path_of(name, KIND) == path
    assert stamp([name], KIND) == stamp(file_names(KIND), KIND)
    assert valid("file", name.replace("one", "two"), KIND) is not True


@pytest.mark.skipif(os.sep != "/", reason="no file of this system has such a name")
def test_a_name_that_is_there_is_taken_as_it_is(models):
    below, flat = (weights(models / KIND / name) for name in ("sub/one.safetensors", "sub\\one.safetensors"))
    assert path_of("sub/one.safetensors", KIND) == below and path_of("sub\\one.safetensors", KIND) == flat
