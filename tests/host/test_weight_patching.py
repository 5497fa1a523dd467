"""Patches of weights: all or none, by diffusers' names, in a dtype fine enough."""

import pytest
import torch
from support.models import tiny_model

from pack.nodes.host.weight_patching import fine, keys_by_diffusers, with_weight_patches

KEY = "diffusion_model.out.2.weight"


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def test_patches_stand_on_a_clone(model):
    patched = with_weight_patches(model, {KEY: (torch.ones(4, 32, 3, 3),)}, 0.5, 0.25)
    assert not model.patches
    ((strength, _, strength_model, *_),) = patched.patches[KEY]
    assert (strength, strength_model) == (0.5, 0.25)


def test_a_model_that_takes_not_all_is_refused(model):
    patches = {KEY: (torch.ones(4, 32, 3, 3),), "diffusion_model.nowhere.weight": (torch.ones(1),)}
    with pytest.raises(ValueError, match="^this model or clip does not accept weight patches; connect one from a"):
        with_weight_patches(model, patches, what="model or clip")
    assert not model.patches


def test_names_of_diffusers(model):
    keys = keys_by_diffusers(model.model)
    assert keys["conv_in.weight"] == "input_blocks.0.0.weight"
    assert set(keys.values()) >= set(dict(model.model.diffusion_model.named_parameters()))


@pytest.mark.parametrize(
    ("dtype", "wanted"),
    [
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.bfloat16),
        (torch.float8_e4m3fn, torch.float16),
        (torch.uint8, torch.float16),
        (torch.int32, torch.float16),
    ],
    ids=str,
)
def test_fine_dtypes(dtype, wanted):
    assert fine(dtype) == wanted
