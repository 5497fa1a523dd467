"""Runs that are cancelled at each step: what they wrote is whole, and the next run ends as if nothing had been."""

import itertools

import comfy.model_management as mm
import folder_paths
import pytest
import torch
from support.concepts import conducted
from support.models import sample, tiny_model
from support.noise_pairs import SMALL, collect, learn, make_pairs
from support.references import prompt

from pack.nodes.golden_noise import npnet_training
from pack.nodes.inversion import inversion_cache

MOST = 60


def cancelled(model, at):
    """The MODEL, which is cancelled at one of its UNet calls; 1 is the first."""
    calls = itertools.count(1)

    # a function: older hosts copy objects with each clone, and what they count
    def wrapper(function, inputs):
        if next(calls) == at:
            raise mm.InterruptProcessingException
        return function(inputs["input"], inputs["timestep"], **inputs["c"])

    model = model.clone()
    model.set_model_unet_function_wrapper(wrapper)
    return model


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A folder with `output`, `npnet` and the user's, as the host names them."""
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path / "user"))
    (tmp_path / "output").mkdir()
    entry = [str(tmp_path / "npnet")], set(folder_paths.supported_pt_extensions)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "npnet", entry)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    monkeypatch.setattr(npnet_training, "PUBLISHED_SIZES", SMALL)
    return tmp_path


def contents(folder):
    """{name: bytes} of all that lies there."""
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_pairs_that_are_collected(model, folders):
    """A cancel at each UNet call leaves the pairs before it, and the next run adds the rest, bit for bit."""
    collect(model, count=2, folder="whole")
    whole, counts = contents(folders / "output" / "whole"), []
    for at in range(1, MOST):
        place, name = folders / "output" / f"{at}", f"{at}"
        try:
            collect(cancelled(model, at), count=2, folder=name)
        except mm.InterruptProcessingException:
            left = contents(place)
            assert left.items() <= whole.items()
            counts.append(len(left))
            collect(model, count=2, folder=name)
            assert contents(place) == whole
        else:
            break
    assert at > 4 and counts == sorted(counts) and set(counts) == {1, 2}


def test_a_training(folders, monkeypatch):
    """A cancel wherever it looks for one leaves no network and no litter; the next run ends as an unbroken one."""
    make_pairs()
    whole, at = learn(steps=3, name="whole")[0].weights, 0
    look = mm.throw_exception_if_processing_interrupted
    while True:
        at, looks = at + 1, iter(range(1, MOST))

        def counted(at=at, looks=looks):
            if next(looks) == at:
                mm.interrupt_current_processing()
            look()

        with monkeypatch.context() as during:
            during.setattr(mm, "throw_exception_if_processing_interrupted", counted)
            try:
                learn(steps=3, name=f"net{at}")
                break
            except mm.InterruptProcessingException:
                pass
        assert f"net{at}.safetensors" not in contents(folders / "npnet")
        again = learn(steps=3, name=f"net{at}")[0].weights
        assert all(torch.equal(again[key], t) for key, t in whole.items())
    assert at > 4 and not list(folders.rglob("*.part"))


def test_an_inverted_layout_picture(model, folders):
    """A cancel at each UNet call leaves a whole inversion or none, and the next picture is the same."""

    def drawn(at=None):
        made = cancelled(conducted(model, layout=True, cache_mb=1, inversion_steps=4), at)
        return sample(made, prompt(model, 100), prompt(model, 200), steps=2)

    place = inversion_cache.folder(inversion_cache.LAYOUT_FILES)
    whole = drawn()
    (kept,) = contents(place).items()
    for at in range(1, MOST):
        (place / kept[0]).unlink()
        try:
            drawn(at)
        except mm.InterruptProcessingException:
            assert contents(place).items() <= {kept}
            assert torch.equal(drawn(), whole) and dict([kept]) == contents(place)
        else:
            break
    assert at > 1
